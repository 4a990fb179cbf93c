// Command dev runs the appliance with an OpenID provider beside it, where one chooses who one is instead of
// typing a password.
//
//	dev [-provider ADDRESS] [-addr ADDRESS] [-data-dir DIR] COMMAND [ARGUMENT...]
//
// COMMAND serves the appliance; it is told by its environment where the provider is. Signals are passed on
// to it, and dev ends with it and with its exit status.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/dezky/platform-api/auth/authtest"
)

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], signals, os.Stdout, os.Stderr))
}

// run is the program; it returns the exit status.
func run(args []string, signals <-chan os.Signal, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("dev", flag.ContinueOnError)
	flags.SetOutput(stderr)
	providerAddr := flags.String("provider", "127.0.0.1:9400", "listen `address` of the provider")
	addr := flags.String("addr", "127.0.0.1:3001", "listen `address` of the appliance")
	dataDir := flags.String("data-dir", "data/dev", "`directory` of the appliance's state")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "dev: no command, such as bin/platform-api serve -demo")
		return 2
	}
	console := "http://" + *addr
	provider, err := authtest.Start(authtest.Options{Addr: *providerAddr, Clients: []authtest.Client{
		authtest.Console(console),
		{ID: authtest.ServiceID, Secret: authtest.Secret(authtest.ServiceID), Groups: []string{"dezky-services"}},
		{ID: authtest.PortalID, Secret: authtest.Secret(authtest.PortalID), Groups: []string{"tenant:dezky"}},
	}})
	if err != nil {
		fmt.Fprintln(stderr, "dev:", err)
		return 1
	}
	defer provider.Close()
	issuer := provider.Issuer()
	welcome(stdout, console, provider.URL()+"/application/o/token/")

	child := exec.Command(flags.Arg(0), flags.Args()[1:]...)
	child.Stdout, child.Stderr = stdout, stderr
	child.Env = append(os.Environ(),
		"PLATFORM_API_OIDC_ISSUER="+issuer,
		"PLATFORM_API_OIDC_CLIENT_ID="+authtest.ConsoleID,
		"PLATFORM_API_OIDC_CLIENT_SECRET="+authtest.Secret(authtest.ConsoleID),
		"PLATFORM_API_URL="+console,
		"PLATFORM_API_ADDR="+*addr,
		"PLATFORM_API_READ_GROUP=dezky-viewers",
		"PLATFORM_API_JWT_AUDIENCES=service="+issuer+"#"+authtest.ServiceID+" portal="+issuer+"#"+authtest.PortalID,
		"PLATFORM_API_DATA_DIR="+*dataDir,
	)
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // or a terminal's ^C would reach it twice, which means at once
	if err := child.Start(); err != nil {
		fmt.Fprintln(stderr, "dev:", err)
		return 1
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for {
		select {
		case s := <-signals:
			child.Process.Signal(s) // it may just have ended
		case err := <-ended:
			return status(err, stderr)
		}
	}
}

// status is the exit status for how the child ended, by a signal's as shells count it.
func status(err error, stderr io.Writer) int {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(stderr, "dev:", err)
		return 1
	}
	if exit == nil {
		return 0
	}
	if how, ok := exit.Sys().(syscall.WaitStatus); ok && how.Signaled() {
		return 128 + int(how.Signal())
	}
	return exit.ExitCode()
}

// sees is what the console shows to the default people.
var sees = map[string]string{
	authtest.OpsSub:      "sees everything and may change it",
	authtest.ViewerSub:   "sees everything and changes nothing",
	authtest.StrangerSub: "is told which group is missing",
	authtest.AcmeSub:     "is told the same: customers have the portal",
}

func welcome(w io.Writer, console, token string) {
	fmt.Fprintf(w, "\nThe console is at %s. Choose who you are when it asks:\n\n", console)
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, p := range authtest.People() {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", p.Name, strings.Join(p.Groups, ", "), sees[p.Sub])
	}
	table.Flush()
	fmt.Fprintf(w, `
A service gets itself a token, good for five minutes, and evaluates with it:

  TOKEN=$(curl -s %[2]s -d grant_type=client_credentials -d scope=profile \
    -d client_id=%[3]s -d client_secret=%[4]s | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -s %[1]s/flags/evaluate -H "Authorization: Bearer $TOKEN" \
    -H 'Content-Type: application/json' -d '{"tenantSlug": "dezky"}'

With %[5]s in place of %[3]s it is a customer's token, which reaches the tenant dezky alone.

`, console, token, authtest.ServiceID, authtest.Secret(authtest.ServiceID), authtest.PortalID)
}
