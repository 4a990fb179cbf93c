// A service or a browser that uses OpenFeature's SDK, driven by a test: "node driver.mjs server" or "… web",
// with the server's address and a token in URL and TOKEN. A line of JSON on standard input is a call, and is
// answered with one on standard output, {"id", "result"} or {"id", "error"}; what happens between is {"event"}.
import { createInterface } from 'node:readline';

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const options = { baseUrl: process.env.URL, headers: [['Authorization', `Bearer ${process.env.TOKEN}`]] };

async function server() {
  const { OpenFeature } = await import('@openfeature/server-sdk');
  const { OFREPProvider } = await import('@openfeature/ofrep-provider');
  await OpenFeature.setProviderAndWait(new OFREPProvider(options));
  const client = OpenFeature.getClient();
  return {
    boolean: ({ flag, otherwise, context }) => client.getBooleanDetails(flag, otherwise, context),
    string: ({ flag, otherwise, context }) => client.getStringDetails(flag, otherwise, context),
  };
}

async function web() {
  const { OpenFeature, ProviderEvents } = await import('@openfeature/web-sdk');
  const { OFREPWebProvider } = await import('@openfeature/ofrep-web-provider');
  globalThis.EventSource = (await import('eventsource')).EventSource; // browsers have one
  for (const event of Object.values(ProviderEvents)) {
    OpenFeature.addHandler(event, ({ flagsChanged, message }) => say({ event, flagsChanged, message }));
  }
  const client = OpenFeature.getClient();
  return {
    start: async ({ context }) => {
      await OpenFeature.setContext(context);
      await OpenFeature.setProviderAndWait(new OFREPWebProvider({ ...options, cacheMode: 'disabled', pollInterval: 0 }));
    },
    context: ({ context }) => OpenFeature.setContext(context),
    boolean: ({ flag, otherwise }) => client.getBooleanDetails(flag, otherwise),
    string: ({ flag, otherwise }) => client.getStringDetails(flag, otherwise),
  };
}

const calls = await { server, web }[process.argv[2]]();
for await (const line of createInterface({ input: process.stdin })) {
  const { id, call, ...args } = JSON.parse(line);
  try {
    say({ id, result: (await calls[call](args)) ?? null });
  } catch (error) {
    say({ id, error: String(error) });
  }
}
process.exit(); // streams would keep it
