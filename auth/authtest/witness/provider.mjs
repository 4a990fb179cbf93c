// A second, independent OpenID provider: npm's certified oidc-provider, pinned to its last version for
// Node.js 18 and 20. The first line of stdout is the issuer. It ends with its stdin.
//
//   node provider.mjs --redirect-uri http://127.0.0.1:3001/login/callback [--port 0] [--account ops]
//
// It signs in the account of --account or of login_hint without asking; with neither a page asks.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

console.info = console.error; // stdout is for the issuer

const { default: Provider } = await import('oidc-provider');

const { values: options } = parseArgs({
  options: {
    'redirect-uri': { type: 'string' },
    port: { type: 'string', default: '0' },
    account: { type: 'string', default: '' },
  },
});

const accounts = {
  ops: { name: 'Olivia Ops', email: 'ops@dezky.example', groups: ['dezky-operators'] },
  viewer: { name: 'Victor Viewer', email: 'viewer@dezky.example', groups: ['dezky-viewers'] },
  stranger: { name: 'Stella Stranger', email: 'stranger@dezky.example', groups: ['marketing'] },
};

const claimsOf = (sub) => ({ sub, preferred_username: sub, email_verified: false, ...accounts[sub] });

const resource = 'urn:dezky:platform-api'; // asking for it gets a JWT access token (RFC 8707, RFC 9068)

const redirectURI = new URL(options['redirect-uri']);

const configuration = {
  clients: [
    {
      client_id: 'dezky-console',
      client_secret: 'dezky-console-secret',
      redirect_uris: [redirectURI.href],
      post_logout_redirect_uris: [new URL('/login', redirectURI).href],
    },
    {
      client_id: 'dezky-service',
      client_secret: 'dezky-service-secret',
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
    },
  ],
  claims: {
    openid: ['sub', 'sid'],
    profile: ['name', 'preferred_username', 'groups'],
    email: ['email', 'email_verified'],
  },
  conformIdTokenClaims: false, // they are in the id token too, not in userinfo alone
  pkce: { required: () => true },
  jwks: { keys: [{ ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
  cookies: { keys: [randomBytes(32).toString('base64url')] },
  ttl: { AccessToken: 300, ClientCredentials: 300, IdToken: 300, Interaction: 600, Session: 3600, Grant: 3600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope: 'profile email', audience: resource, accessTokenFormat: 'jwt' }),
    },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => {
        ctx.body = page('Sign out?', `${form}<button form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
      postLogoutSuccessSource: (ctx) => {
        ctx.body = page('You are signed out.', '');
      },
    },
  },
  extraTokenClaims: (ctx, token) => ({ groups: accounts[token.accountId]?.groups ?? [] }),
  findAccount: (ctx, sub) => (accounts[sub] ? { accountId: sub, claims: () => claimsOf(sub) } : undefined),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  loadExistingGrant: async (ctx) => { // nobody is asked for consent
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid profile email');
    grant.addResourceScope(resource, 'profile email');
    await grant.save();
    return grant;
  },
};

const page = (title, body) => `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`;

const signInPage = page('Sign in', '<form method="post"><label>Account <input name="account"></label> <button>Sign in</button></form>');

const server = createServer();
server.listen(Number(options.port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const serve = provider.callback();
  server.on('request', async (request, response) => {
    if (!request.url.startsWith('/interaction/')) {
      serve(request, response);
      return;
    }
    try {
      const { params } = await provider.interactionDetails(request, response);
      let account = params.login_hint ?? options.account;
      if (request.method === 'POST') {
        let body = '';
        for await (const chunk of request) body += chunk;
        account = new URLSearchParams(body).get('account');
      }
      if (accounts[account]) {
        await provider.interactionFinished(request, response, { login: { accountId: account } });
        return;
      }
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      response.end(signInPage);
    } catch (error) {
      response.statusCode = 400;
      response.end(String(error));
    }
  });
  process.stdout.write(`${issuer}\n`);
});

process.stdin.resume().on('end', () => process.exit());
