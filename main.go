// Command platform-api is the appliance that decides which tenant gets which feature: flags and tenants
// in SQLite, evaluated over HTTP.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/handlers"
	"github.com/dezky/platform-api/provisioning"
	"github.com/dezky/platform-api/replica"
	"github.com/dezky/platform-api/seed"
)

//go:embed openapi.yaml
var spec []byte

// Set by the linker; see versions for builds without it.
var version, commit string

// stopWithin is how long requests that are under way get to end.
const stopWithin = 10 * time.Second

// gcPercent is how much garbage there may be beside what lives, in percent of it: more than Go's 100, because
// requests make little else than garbage, and each collection reads all flags and tenants. GOGC overrules it.
const gcPercent = 200

// replicaWithin is how long the replica gets to end what is under way.
const replicaWithin = 5 * time.Second

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the program: it runs the command that args name until it is done or ctx ends, and returns the
// exit status. It reads the environment through getenv alone.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	name, rest := "serve", args
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, rest = args[0], args[1:]
		if name == "token" && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			name, rest = "token "+rest[0], rest[1:]
		}
	} else if len(args) > 0 && isHelp(args[0]) {
		name = "help"
	}
	if name == "help" || name == "token" && slices.ContainsFunc(rest, isHelp) {
		fmt.Fprint(stdout, overview())
		return exitOK
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == name })
	if i < 0 {
		names := make([]string, len(commands))
		for i, c := range commands {
			names[i] = c.name
		}
		fmt.Fprintf(stderr, "platform-api: unknown command %q; the commands are %s\n", name, strings.Join(names, ", "))
		return exitUsage
	}
	cl := newCall(commands[i], getenv, stdout, stderr)
	err := cl.parse(rest)
	if err == nil {
		err = cl.command.run(ctx, cl)
	}
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, cl.help())
		return exitOK
	case errors.As(err, &usage):
		for _, mistake := range usage.mistakes {
			fmt.Fprintln(stderr, "platform-api: "+mistake)
		}
		return exitUsage
	}
	fmt.Fprintln(stderr, "platform-api: "+oneLine(err))
	return exitFailure
}

func isHelp(arg string) bool {
	return arg == "-h" || arg == "-help" || arg == "--help"
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", ": ") }

// command is one row of the table below.
type command struct {
	name     string
	operand  string // the one argument that is not a flag, or ""
	settings []*setting
	text     string
	run      func(ctx context.Context, c *call) error
}

// setting is a flag, and the environment variable that it overrides, if any.
type setting struct {
	flag, variable string
	kind           string // of the value, for -h; "" for a switch
	otherwise      string // the default
	text           string
}

var (
	addrSetting         = &setting{"addr", "PLATFORM_API_ADDR", "ADDRESS", "", "listen address; port 0 takes a free one (default 127.0.0.1:3001, with an identity provider :3001)"}
	urlSetting          = &setting{"url", "PLATFORM_API_URL", "URL", "", "public base URL, as browsers reach it (default http:// and the bound address; required with an identity provider)"}
	issuerSetting       = &setting{"oidc-issuer", "PLATFORM_API_OIDC_ISSUER", "URL", "", "identity provider by which operators sign in, such as https://id.example.com/application/o/SLUG/"}
	clientSetting       = &setting{"oidc-client-id", "PLATFORM_API_OIDC_CLIENT_ID", "ID", "", "client id of this appliance there; its secret is PLATFORM_API_OIDC_CLIENT_SECRET"}
	operatorSetting     = &setting{"operator-group", "PLATFORM_API_OPERATOR_GROUP", "GROUP", "dezky-operators", "group of the identity provider whose members change flags"}
	readSetting         = &setting{"read-group", "PLATFORM_API_READ_GROUP", "GROUP", "", "group of the identity provider whose members look at them (default none)"}
	audiencesSetting    = &setting{"jwt-audiences", "PLATFORM_API_JWT_AUDIENCES", "LIST", "", "whose bearer tokens are accepted besides: kind=issuer#audience, space-separated, kind operator, service or portal"}
	originsSetting      = &setting{"cors-origins", "PLATFORM_API_CORS_ORIGINS", "ORIGINS", "", "origins of pages that may evaluate from a browser, separated by spaces or commas, such as https://app.example.com (default none)"}
	metricsSetting      = &setting{"metrics-addr", "PLATFORM_API_METRICS_ADDR", "ADDRESS", "", "a separate listen address for /metrics and /debug/pprof/, without a token (default none)"}
	proxiesSetting      = &setting{"trusted-proxies", "PLATFORM_API_TRUSTED_PROXIES", "N", "0", "how many proxies stand before the server, which tell the client's address in X-Forwarded-For"}
	dataDirSetting      = &setting{"data-dir", "PLATFORM_API_DATA_DIR", "DIR", "./data", "directory of platform-api.db and all other state"}
	environmentsSetting = &setting{"environments", "PLATFORM_API_ENVIRONMENTS", "LIST", "production,staging,development", "the known environments, comma-separated"}
	environmentSetting  = &setting{"environment", "PLATFORM_API_ENVIRONMENT", "NAME", "", "the default environment, assumed where none is named (default the first of them)"}
	authentikSetting    = &setting{"authentik-url", "PLATFORM_API_AUTHENTIK_URL", "URL", "", "Authentik whose groups follow the tenants, such as https://id.example.com; its token is PLATFORM_API_AUTHENTIK_TOKEN"}
	logSetting          = &setting{"log", "PLATFORM_API_LOG", "LEVEL", "info", "least level that is logged, as JSON lines on stderr: debug, info, warn, error"}
	gainSetting         = &setting{"confirm-gain", "PLATFORM_API_CONFIRM_GAIN", "N", "10", "a console change by which more tenants than this gain a flag asks for confirmation"}
	replicaSetting      = &setting{"replica-url", "PLATFORM_API_REPLICA_URL", "URL", "", "where a copy of the database is kept: file:///path or s3://bucket/prefix?endpoint=…&region=…&forcePathStyle=true"}
	firstBootSetting    = &setting{flag: "first-boot", variable: "PLATFORM_API_FIRST_BOOT", text: "with a replica: begin anew where neither a database nor a backup is there"}
	durabilitySetting   = &setting{"durability", "PLATFORM_API_DURABILITY", "WHAT", "local", "when a change is acknowledged: local, once it is on this disk; replicated, once the replica has it too"}
	demoSetting         = &setting{flag: "demo", text: "add the demo registry, if the registry is empty but for the seeds"}
	nameSetting         = &setting{flag: "name", kind: "NAME", text: "the token's name, for lists and the history; never used twice"}
	roleSetting         = &setting{flag: "role", kind: "ROLE", text: "what it may do: operator, read or evaluate; each may do what the next may"}
	envSetting          = &setting{flag: "env", kind: "NAME", text: "the one environment that it is for (default every one)"}
	expiresSetting      = &setting{flag: "expires", kind: "DURATION", text: "when it ends, from now, such as 90d or 12h (default never)"}
	atSetting           = &setting{flag: "at", kind: "TIME", text: "bring back the last state not after this time, such as 2026-01-31T14:05:00Z (default the latest)"}
	listSetting         = &setting{flag: "list", text: "only list the states that can be brought back, oldest first"}
	checkSetting        = &setting{flag: "check", text: "only try it: restore to a temporary directory, check that, compare it with the data directory, remove it"}
	outSetting          = &setting{flag: "o", kind: "DIR", text: "directory to restore into (default the data directory)"}
	replaceSetting      = &setting{flag: "replace", text: "also remove what the document's lists do not name; a list that it lacks is left alone"}
	headSetting         = &setting{flag: "head", kind: "HASH", text: "a last hash that was noted earlier, in hex: it must still be an entry's, so that a log whose end was cut off is found"}
	dryRunSetting       = &setting{flag: "dry-run", text: "change nothing; print what would change, and who would gain and lose"}
)

// commands is filled by init, since help reads it and commands print help.
var commands []command

func init() {
	commands = []command{
		{"serve", "", []*setting{addrSetting, urlSetting, dataDirSetting, environmentsSetting, environmentSetting,
			issuerSetting, clientSetting, operatorSetting, readSetting, audiencesSetting, proxiesSetting, originsSetting, metricsSetting,
			replicaSetting, firstBootSetting, durabilitySetting, gainSetting, authentikSetting, logSetting, demoSetting},
			"runs the appliance, until SIGTERM or SIGINT", serve},
		{"token create", "", []*setting{nameSetting, roleSetting, envSetting, expiresSetting, dataDirSetting, environmentsSetting, replicaSetting},
			"makes an API token and prints it, once, alone on a line; works beside a running server", tokenCreate},
		{"token list", "", []*setting{dataDirSetting}, "lists the API tokens, without their secrets", tokenList},
		{"token revoke", "ID", []*setting{dataDirSetting}, "ends an API token; a running server refuses it within a second", tokenRevoke},
		{"export", "", []*setting{dataDirSetting}, "prints flags, tenants and partners as one JSON document, without versions, times and history", export},
		{"import", "FILE", []*setting{replaceSetting, dryRunSetting, dataDirSetting, environmentsSetting, replicaSetting, firstBootSetting},
			"takes such a document in, all or nothing, while no server runs; fields that an element leaves out stay as they are", importFile},
		{"restore", "", []*setting{atSetting, listSetting, checkSetting, outSetting, dataDirSetting, replicaSetting},
			"brings the database back from the replica, into a directory that has none", restore},
		{"verify", "", []*setting{headSetting, dataDirSetting}, "checks the log: each entry whole and after the one before, none missing, flags as it left them; works beside a running server", verify},
		{"version", "", []*setting{dataDirSetting}, "prints the versions of program, commit, Go and SQLite", versions},
	}
}

func overview() string {
	var b strings.Builder
	b.WriteString("platform-api decides which tenant gets which feature.\n\nUsage: platform-api COMMAND [FLAGS]; without a command it serves.\n\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, c := range commands {
		fmt.Fprintf(w, "  %s\t%s\n", strings.TrimSpace(c.name+" "+c.operand), c.text)
	}
	w.Flush()
	b.WriteString("\nplatform-api COMMAND -h lists a command's flags.\n")
	return b.String()
}

// usageError is every mistake in flags and configuration, a line each.
type usageError struct{ mistakes []string }

func (e *usageError) Error() string { return strings.Join(e.mistakes, "; ") }

// call is one run of a command: its settings, and the mistakes in them.
type call struct {
	command        command
	getenv         func(string) string
	stdout, stderr io.Writer

	given    map[string]string // flags by name
	operand  string
	mistakes []string
}

func newCall(c command, getenv func(string) string, stdout, stderr io.Writer) *call {
	return &call{command: c, getenv: getenv, stdout: stdout, stderr: stderr, given: map[string]string{}}
}

// parse reads the arguments. It goes on after a mistake, so that all are told at once; they wait for
// check, except a call for help.
func (c *call) parse(args []string) error {
	fs := flag.NewFlagSet(c.command.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for _, s := range c.command.settings {
		note := func(value string) error {
			c.given[s.flag] = value
			return nil
		}
		if s.kind == "" {
			fs.BoolFunc(s.flag, "", func(value string) error {
				if _, err := strconv.ParseBool(value); err != nil {
					return errors.New("must be true or false")
				}
				return note(value)
			})
		} else {
			fs.Func(s.flag, "", note)
		}
	}
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		args = fs.Args()
		if err != nil {
			c.mistakes = append(c.mistakes, err.Error())
			if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // most likely the unknown flag's value
			}
			continue
		}
		if len(args) == 0 {
			break
		}
		if c.command.operand == "" || c.operand != "" {
			c.mistakes = append(c.mistakes, fmt.Sprintf("unexpected argument %q", args[0]))
		} else {
			c.operand = args[0]
		}
		args = args[1:]
	}
	if c.command.operand != "" && c.operand == "" {
		c.mistakes = append(c.mistakes, c.command.name+" needs "+c.command.operand)
	}
	return nil
}

// check returns all mistakes found so far as one usage error.
func (c *call) check() error {
	if len(c.mistakes) == 0 {
		return nil
	}
	return &usageError{c.mistakes}
}

func (c *call) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "platform-api %s %s\n\nUsage: platform-api %s [FLAGS]", c.command.name, c.command.text, c.command.name)
	if c.command.operand != "" {
		b.WriteString(" " + c.command.operand)
	}
	b.WriteString("\n\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range c.command.settings {
		text := s.text
		if s.otherwise != "" {
			text += " (default " + s.otherwise + ")"
		}
		if s.variable != "" {
			text += "; also " + s.variable
		}
		fmt.Fprintf(w, "  -%s\t%s\n", strings.TrimSpace(s.flag+" "+s.kind), text)
	}
	w.Flush()
	return b.String()
}

// value is a setting's: the flag wins over the variable, and that over the default.
func (c *call) value(s *setting) string {
	if v, given := c.given[s.flag]; given {
		return v
	}
	if s.variable != "" {
		if v := c.getenv(s.variable); v != "" {
			return v
		}
	}
	return s.otherwise
}

// mistake notes what is wrong with a setting, naming its variable, or the flag that overrode it.
func (c *call) mistake(s *setting, format string, args ...any) {
	name := s.variable
	if _, given := c.given[s.flag]; given || name == "" {
		name = strings.TrimSuffix(fmt.Sprintf("-%s (%s)", s.flag, s.variable), " ()")
	}
	c.mistakes = append(c.mistakes, name+": "+fmt.Sprintf(format, args...))
}

func (c *call) is(s *setting) bool {
	text := c.value(s)
	on, err := strconv.ParseBool(text)
	if err != nil && text != "" { // of a variable; parse has refused it in a flag
		c.mistake(s, "%q is neither true nor false", text)
	}
	return on
}

func (c *call) dataDir() string {
	dir := c.value(dataDirSetting)
	if strings.ContainsRune(dir, 0) || dir == "" {
		c.mistake(dataDirSetting, "must be the path of a directory")
	}
	return dir
}

func (c *call) environments() []string {
	var out []string
	for name := range strings.SplitSeq(c.value(environmentsSetting), ",") {
		switch name = strings.TrimSpace(name); {
		case !flags.IsName(name):
			c.mistake(environmentsSetting, "%q is not a name of %s", name, flags.NameRule)
		case slices.Contains(out, name):
			c.mistake(environmentsSetting, "%q is given twice", name)
		default:
			out = append(out, name)
		}
	}
	if len(out) > flags.MaxEnvironments {
		c.mistake(environmentsSetting, "names %d environments; at most %d are allowed", len(out), flags.MaxEnvironments)
	}
	return out
}

// options are those of the database.
func (c *call) options() db.Options {
	return db.Options{Dir: c.dataDir(), Environments: c.environments()}
}

// replica returns where the replica is, nil if there is none.
func (c *call) replica() *replica.Config {
	text := c.value(replicaSetting)
	if text == "" {
		return nil
	}
	config, err := replica.Parse(text, c.getenv)
	if err != nil {
		c.mistake(replicaSetting, "%s", err)
	}
	return config
}

// logger writes JSON lines, each with the service's name.
func (c *call) logger() *slog.Logger {
	var level slog.Level
	name := c.value(logSetting)
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, name) || level.UnmarshalText([]byte(name)) != nil {
		c.mistake(logSetting, "%q is not one of debug, info, warn, error", name)
	}
	return slog.New(slog.NewJSONHandler(c.stderr, &slog.HandlerOptions{Level: level})).With("service", handlers.Service)
}

func (c *call) address() string {
	addr := c.value(addrSetting)
	switch {
	case addr != "":
	case c.value(issuerSetting) != "":
		addr = ":3001"
	default:
		addr = "127.0.0.1:3001"
	}
	c.checkAddress(addrSetting, addr)
	return addr
}

func (c *call) checkAddress(s *setting, addr string) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.mistake(s, "%q is not an address such as 127.0.0.1:3001 or :3001", addr)
	}
}

// publicURL returns the origin by which browsers reach the server, or "" for the bound address.
func (c *call) publicURL() string {
	text := c.value(urlSetting)
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		c.mistake(urlSetting, "%q is not a URL such as https://flags.example.com, without path, query and user", text)
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// origins are those of the pages that may evaluate, as browsers send them.
func (c *call) origins() []string {
	var out []string
	for _, text := range strings.FieldsFunc(c.value(originsSetting), func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Scheme+"://"+strings.ToLower(u.Host) != strings.ToLower(strings.TrimSuffix(text, "/")) || u.Hostname() == "" || u.User != nil ||
			strings.HasSuffix(u.Host, ":") || strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }) {
			c.mistake(originsSetting, "%q is not an origin such as https://app.example.com; each is named, without a path", text)
			continue
		}
		port := u.Port()
		if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
			u.Host = u.Host[:strings.LastIndex(u.Host, ":")] // browsers leave it out
		}
		out = append(out, u.Scheme+"://"+strings.ToLower(u.Host))
	}
	return out
}

// number is a setting that is a whole number from 0.
func (c *call) number(s *setting) int {
	n, err := strconv.Atoi(c.value(s))
	if err != nil || n < 0 {
		c.mistake(s, "%q is not a whole number from 0", c.value(s))
	}
	return n
}

// secret is the value of a variable that has no flag, and may come from a file, whose variable ends in
// _FILE. It is not ok where a mistake has been noted.
func (c *call) secret(variable string) (value string, ok bool) {
	text := c.getenv(variable)
	if file := c.getenv(variable + "_FILE"); file != "" {
		if text != "" {
			c.mistakes = append(c.mistakes, variable+": is given, and "+variable+"_FILE too")
			return "", false
		}
		content, err := os.ReadFile(file)
		if err != nil {
			c.mistakes = append(c.mistakes, variable+"_FILE: "+err.Error())
			return "", false
		}
		text = string(content)
	}
	return strings.TrimSpace(text), true
}

// clientSecretVariable holds the secret of the client by which operators sign in.
const clientSecretVariable = "PLATFORM_API_OIDC_CLIENT_SECRET"

// openID reads whom the appliance trusts to say who people are. The client is nil where nobody signs in
// through a provider.
func (c *call) openID(publicURL string) auth.OpenIDOptions {
	o := auth.OpenIDOptions{Groups: auth.Groups{Operator: c.value(operatorSetting), Read: c.value(readSetting)}}
	var mistakes []string
	o.Audiences, mistakes = auth.ParseAudiences(c.value(audiencesSetting))
	for _, m := range mistakes {
		c.mistake(audiencesSetting, "%s", m)
	}
	if o.Groups.Read == o.Groups.Operator {
		c.mistake(readSetting, "%q is the operator group too", o.Groups.Read)
	}
	secret, readable := c.secret(clientSecretVariable)
	client := auth.Client{Issuer: c.value(issuerSetting), ID: c.value(clientSetting), Secret: secret}
	if client == (auth.Client{}) {
		return o
	}
	o.Client = &client
	missing := func(s *setting) { c.mistake(s, "is missing; sign-in through an identity provider needs it") }
	if client.Issuer == "" {
		missing(issuerSetting)
	}
	if client.ID == "" {
		missing(clientSetting)
	}
	if client.Secret == "" && readable {
		missing(&setting{variable: clientSecretVariable})
	}
	if why := auth.CheckIssuer(client.Issuer); client.Issuer != "" && why != "" {
		c.mistake(issuerSetting, "%s", why)
	}
	for _, a := range o.Audiences {
		if a.Issuer == client.Issuer && a.Name == client.ID {
			c.mistake(audiencesSetting, "%q is the client by which operators sign in, whose tokens are accepted anyhow", string(a.Kind)+"="+a.Issuer+"#"+a.Name)
		}
	}
	if u, err := url.Parse(publicURL); publicURL == "" && c.value(urlSetting) == "" {
		c.mistake(urlSetting, "is missing; the identity provider sends people back to it")
	} else if publicURL != "" && err == nil && u.Scheme != "https" && !auth.IsLoopback(u.Hostname()) {
		c.mistake(urlSetting, "%q must be https, unless its host is loopback", publicURL)
	}
	return o
}

// authentikTokenVariable holds the token for Authentik's API.
const authentikTokenVariable = "PLATFORM_API_AUTHENTIK_TOKEN"

// authentik returns the Authentik whose groups follow the tenants, nil if there is none.
func (c *call) authentik() *provisioning.Authentik {
	address := c.value(authentikSetting)
	token, readable := c.secret(authentikTokenVariable)
	if address == "" && token == "" && readable {
		return nil
	}
	why := provisioning.CheckURL(address)
	if address == "" {
		why = "is missing; a token for Authentik is given"
	}
	if why != "" {
		c.mistake(authentikSetting, "%s", why)
	}
	why = provisioning.CheckToken(token)
	if token == "" && readable {
		why = "is missing; provisioning in Authentik needs it"
	}
	if why != "" {
		c.mistake(&setting{variable: authentikTokenVariable}, "%s", why)
	}
	return provisioning.NewAuthentik(address, token)
}

// sessionKeyVariable holds the keys of session cookies; like every secret it has no flag, and may come
// from a file.
const sessionKeyVariable = "PLATFORM_API_SESSION_KEY"

// sessionKeys returns the configured keys, the newest first, or nil where there are none.
func (c *call) sessionKeys() [][]byte {
	text, ok := c.secret(sessionKeyVariable)
	if !ok {
		return nil
	}
	var keys [][]byte
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" && text == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(part)
		if err != nil || len(key) != auth.SessionKeySize {
			c.mistakes = append(c.mistakes, fmt.Sprintf("%s: key %d is not %d bytes in base64", sessionKeyVariable, len(keys)+1, auth.SessionKeySize))
		}
		keys = append(keys, key)
	}
	return keys
}

// sessionKeyFile is where a data directory keeps the key that was made for it.
const sessionKeyFile = "session.key"

// ownSessionKey returns the data directory's key, made once.
func ownSessionKey(dir string) ([][]byte, error) {
	name := filepath.Join(dir, sessionKeyFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		key := make([]byte, auth.SessionKeySize)
		rand.Read(key)
		text = []byte(base64.StdEncoding.EncodeToString(key) + "\n")
		err = os.WriteFile(name, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != auth.SessionKeySize {
		return nil, fmt.Errorf("session key: %s does not hold %d bytes in base64; remove it to have a new one made, which signs everybody out", name, auth.SessionKeySize)
	}
	return [][]byte{key}, nil
}

// serve runs the appliance. It listens first, so that /health answers while the database opens; it stops
// in the reverse order.
func serve(ctx context.Context, c *call) (err error) {
	if c.getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	logger := c.logger()
	addr, publicURL, options := c.address(), c.publicURL(), c.options()
	openIDOptions := c.openID(publicURL)
	origins := c.origins()
	metricsAddr := c.value(metricsSetting)
	if metricsAddr != "" {
		c.checkAddress(metricsSetting, metricsAddr)
	}
	authentik := c.authentik()
	if authentik != nil {
		options.Integrations = []string{provisioning.Name}
	}
	confirmGain, proxies, keys := c.number(gainSetting), c.number(proxiesSetting), c.sessionKeys()
	copyTo, firstBoot, durability := c.replica(), c.is(firstBootSetting), c.value(durabilitySetting)
	if durability != "local" && durability != "replicated" {
		c.mistake(durabilitySetting, "%q is neither local nor replicated", durability)
	} else if durability == "replicated" && c.value(replicaSetting) == "" {
		c.mistake(durabilitySetting, "replicated needs a replica in PLATFORM_API_REPLICA_URL")
	}
	environment := c.value(environmentSetting)
	if environment == "" && len(options.Environments) > 0 {
		environment = options.Environments[0]
	} else if environment != "" && !slices.Contains(options.Environments, environment) {
		c.mistake(environmentSetting, "%q is not one of the known environments %s", environment, strings.Join(options.Environments, ", "))
	}
	if err := c.check(); err != nil {
		return err
	}

	lock, err := db.AcquireLock(options.Dir, "serve", time.Now())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	bound := "http://" + listener.Addr().String()
	byHost := publicURL == ""
	if byHost {
		publicURL = bound
	}
	if keys == nil {
		if keys, err = ownSessionKey(options.Dir); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	app := handlers.New(handlers.Options{Log: logger, Version: buildVersion(), Commit: buildCommit(), Spec: spec, Proxies: proxies})
	server := &http.Server{
		Handler:           app,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(lineLogger{logger}, "", 0),
		Protocols:         new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true) // by prior knowledge, as proxies and services within a network speak it
	if metricsAddr != "" {
		stop, err := serveMetrics(metricsAddr, app.Diagnostics(), logger)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		defer stop()
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { err = errors.Join(err, shutdown(server, logger)) }() // for a start that fails
	fmt.Fprintln(c.stdout, "Listening on "+bound)

	app.NotReady("opening the replica")
	copied, err := replica.Open(ctx, replica.Options{Config: copyTo, Dir: options.Dir, FirstBoot: firstBoot, Log: logger, Now: time.Now})
	if err != nil {
		return err
	}
	defer func() { // after the database: its last changes too
		if err := copied.Close(context.Background()); err != nil {
			logger.Error("the replica lacks the latest changes; they are in the data directory", "error", err.Error())
		}
	}()
	app.NotReady("opening the database")
	database, err := db.Open(ctx, options)
	if err != nil {
		return err
	}
	copied.Start(database)
	tokens := auth.NewTokens(database, time.Now, logger)
	sessions, err := auth.NewSessions(auth.SessionOptions{DB: database, Keys: keys, Secure: strings.HasPrefix(publicURL, "https:"), Now: time.Now, Log: logger})
	if err != nil {
		return errors.Join(err, database.Close())
	}
	streams, err := auth.NewStreamKeys(keys)
	if err != nil {
		return errors.Join(err, database.Close())
	}
	background, endBackground := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { tokens.Run(background) })
	running.Go(func() { sessions.Run(background) })
	openIDOptions.DB, openIDOptions.Sessions, openIDOptions.PublicURL = database, sessions, publicURL
	openIDOptions.Now, openIDOptions.Log = time.Now, logger
	openID, err := auth.NewOpenID(background, openIDOptions)
	if err == nil {
		running.Go(func() { openID.Run(background) })
	}
	defer func() {
		app.NotReady("stopping")
		app.EndStreams()
		err = errors.Join(err, shutdown(server, logger)) // no request may need the database any more
		app.Wait()
		endBackground()
		patience, cancel := context.WithTimeout(context.Background(), replicaWithin)
		defer cancel()
		if copied.Stop(patience) != nil { // it holds the database; every acknowledged change is on the disk
			logger.Error("the replica does not let go of the database, which is left as after a crash")
			return
		}
		running.Wait()
		err = errors.Join(err, database.Close())
		logger.Info("stopped")
	}()
	if err != nil {
		return err
	}

	app.NotReady("planting the seeds")
	demo := c.is(demoSetting)
	err = seed.Plant(ctx, database, demo, time.Now())
	var frozen *flags.Frozen
	if errors.As(err, &frozen) {
		logger.Info("seeds wait for the end of the freeze", "until", frozen.Until)
		running.Go(func() {
			if err := seed.PlantLater(background, database, demo, time.Now); err != nil {
				logger.Error("seeds not planted", "error", err.Error())
			}
		})
	} else if err != nil {
		return err
	}
	if durability == "replicated" {
		database.AcknowledgeBy(copied.Wait)
	}
	var provisioner *provisioning.Runner
	if authentik != nil {
		provisioner = provisioning.New(provisioning.Options{DB: database, Authentik: authentik, Log: logger, Now: time.Now})
		running.Go(func() { provisioner.Run(background) })
	}
	appliance := handlers.Appliance{DB: database, Tokens: tokens, Environment: environment, PublicURL: publicURL, ByHost: byHost,
		Streams: streams, Sessions: sessions, OpenID: openID, Origins: origins, ConfirmGain: confirmGain, Now: time.Now, Replica: copied, Provisioning: provisioner}
	if address, ok := listener.Addr().(*net.TCPAddr); ok && address.IP.IsLoopback() && openID.SignIn == nil {
		appliance.Links = auth.NewLinks(time.Now)
		appliance.AnnounceLink = func(secret string) { fmt.Fprintln(c.stdout, "Sign in: "+bound+"/login/link#"+secret) }
	}
	if err := app.Start(appliance); err != nil {
		return err
	}
	running.Go(func() { app.WatchLog(background) })
	if appliance.Links != nil {
		appliance.AnnounceLink(appliance.Links.New())
	}
	if openID.SignIn != nil {
		logger.Info("sign-in", "issuer", openIDOptions.Client.Issuer, "redirectURI", publicURL+auth.CallbackPath,
			"postLogoutRedirectURI", publicURL+"/login", "backChannelLogoutURI", publicURL+auth.BackChannelPath)
	}
	s := database.Current()
	logger.Info("ready", "url", publicURL, "version", buildVersion(), "revision", s.Revision(),
		"flags", len(s.Flags()), "tenants", len(s.Tenants()), "environments", s.Environments(), "environment", environment, "replication", string(copied.Status().State), "durability", durability)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		logger.Info("stopping", "cause", context.Cause(ctx).Error())
		return nil
	}
}

// serveMetrics serves metrics and profiles on an address of their own, until stop is called.
func serveMetrics(addr string, h http.Handler, logger *slog.Logger) (stop func(), err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 120 * time.Second, ErrorLog: log.New(lineLogger{logger}, "", 0)}
	go server.Serve(listener)
	logger.Info("metrics", "url", "http://"+listener.Addr().String()+"/metrics")
	return func() { server.Close() }, nil
}

// shutdown lets requests end, for a while. It may be called again.
func shutdown(server *http.Server, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		logger.Warn("requests cut short", "after", stopWithin.String())
		return server.Close()
	}
	return err
}

// lineLogger takes the lines of net/http's own log.
type lineLogger struct{ log *slog.Logger }

func (l lineLogger) Write(line []byte) (int, error) {
	l.log.Warn("http", "message", string(bytes.TrimSpace(line)))
	return len(line), nil
}

// beside opens the database for a command that may run beside a server.
func (c *call) beside(ctx context.Context, environments []string) (*db.DB, error) {
	options := db.Options{Dir: c.dataDir(), Environments: environments}
	if err := c.check(); err != nil {
		return nil, err
	}
	return db.OpenBeside(ctx, options)
}

// cliActor is who the history names for tokens made and revoked by command.
const cliActor = "system:cli"

func tokenCreate(ctx context.Context, c *call) (err error) {
	n := db.NewToken{Name: c.value(nameSetting), Role: c.value(roleSetting), Environment: c.value(envSetting)}
	for _, s := range []*setting{nameSetting, roleSetting} {
		if c.value(s) == "" {
			c.mistake(s, "is required")
		}
	}
	if text := c.value(expiresSetting); text != "" {
		if n.Expires, err = flags.ParseDuration(text); err != nil || n.Expires <= 0 {
			c.mistake(expiresSetting, "%q is not a duration such as 90d or 12h", text)
		}
	}
	environments, copied := c.environments(), c.replica()
	for _, f := range n.Check(environments) {
		if c.given[f.Field] != "" {
			c.mistake(&setting{flag: f.Field}, "%s", f.Message)
		}
	}
	d, err := c.beside(ctx, environments)
	if errors.Is(err, db.ErrNoDatabase) {
		if copied != nil {
			return fmt.Errorf("%w, and with a replica none is made here: start the server first", err)
		}
		var release func() error
		if d, release, err = c.create(ctx, environments, nil, false); err == nil {
			defer func() { err = errors.Join(err, release()) }()
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	secret, _, err := d.CreateToken(ctx, db.By{Actor: cliActor, Via: flags.ViaCommand}, n)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.stdout, secret)
	return err
}

// create opens the data directory alone, and makes the database where none is yet: so that the first token
// can come before the first start, say. A replica is brought up to date in the end.
func (c *call) create(ctx context.Context, environments []string, copyTo *replica.Config, firstBoot bool) (*db.DB, func() error, error) {
	dir := c.dataDir()
	lock, err := db.AcquireLock(dir, c.command.name, time.Now())
	if err != nil {
		return nil, nil, err
	}
	copied, err := replica.Open(ctx, replica.Options{Config: copyTo, Dir: dir, FirstBoot: firstBoot, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		return nil, nil, errors.Join(err, lock.Release())
	}
	release := func() error {
		if err := copied.Close(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintf(c.stderr, "platform-api: the replica does not have this yet; the next start of the server sees to it: %s\n", oneLine(err))
		}
		return lock.Release()
	}
	d, err := db.Open(ctx, db.Options{Dir: dir, Environments: environments})
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return d, release, nil
}

func tokenList(ctx context.Context, c *call) (err error) {
	d, err := c.beside(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	tokens, err := d.Tokens(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tROLE\tENVIRONMENT\tSTATUS\tCREATED\tLAST USED\tEXPIRES\tCREATED BY")
	now := time.Now()
	for _, t := range tokens {
		status := "active"
		switch {
		case !t.RevokedAt.IsZero():
			status = "revoked"
		case !t.Usable(now):
			status = "expired"
		}
		environment := t.Environment
		if environment == "" {
			environment = "every"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Role, environment, status,
			when(t.CreatedAt), when(t.LastUsedAt), when(t.ExpiresAt), t.CreatedBy)
	}
	return w.Flush()
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func tokenRevoke(ctx context.Context, c *call) (err error) {
	d, err := c.beside(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	t, err := d.RevokeToken(ctx, db.By{Actor: cliActor, Via: flags.ViaCommand}, c.operand)
	if errors.Is(err, flags.ErrNotFound) {
		return fmt.Errorf("no token has the id %q; \"platform-api token list\" shows the ids", c.operand)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "token %s (%s) is revoked\n", t.ID, t.Name)
	return err
}

func export(ctx context.Context, c *call) (err error) {
	d, err := c.beside(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	s, err := d.Load(ctx)
	if err != nil {
		return err
	}
	return flags.WriteDocument(c.stdout, s)
}

// importActor is who the history names for an import.
const importActor = "system:import"

func importFile(ctx context.Context, c *call) (err error) {
	environments := c.environments()
	dir, copyTo, firstBoot := c.dataDir(), c.replica(), c.is(firstBootSetting)
	if err := c.check(); err != nil {
		return err
	}
	body, err := os.ReadFile(c.operand)
	if err != nil {
		return err
	}
	document, err := flags.DecodeDocument(body)
	if err != nil {
		return fmt.Errorf("%s: %w", c.operand, err)
	}
	seeds, err := seed.Seeds()
	if err != nil {
		return err
	}
	d, release, err := c.create(ctx, environments, copyTo, firstBoot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close(), release()) }()
	entries, err := d.Import(ctx, db.By{Actor: importActor, Via: flags.ViaImport}, document,
		db.Import{Replace: c.is(replaceSetting), DryRun: c.is(dryRunSetting), Seeds: seeds})
	var invalid *flags.Invalid
	if errors.As(err, &invalid) {
		for _, f := range invalid.Errors {
			fmt.Fprintf(c.stderr, "platform-api: %s: %s %s\n", c.operand, f.Field, f.Message)
		}
		return fmt.Errorf("%s: nothing was imported into %s: %d mistakes", c.operand, dir, len(invalid.Errors))
	}
	if err != nil {
		return err
	}
	report(c.stdout, entries, environments)
	if c.is(dryRunSetting) {
		fmt.Fprintln(c.stdout, "Nothing was changed: this was a dry run.")
	}
	return nil
}

// report prints what an import changes, a line each, and under each flag who gains and loses it.
func report(w io.Writer, entries []flags.Entry, environments []string) {
	for _, e := range entries {
		fmt.Fprintf(w, "%s %s %s\n", e.Action, e.Kind, e.Name)
		if e.Action != flags.Created && e.Action != flags.Deleted {
			for _, field := range e.Changes.Fields() {
				fmt.Fprintf(w, "    %s %s -> %s\n", field, e.Changes[field].From, e.Changes[field].To)
			}
		}
		for _, name := range environments {
			if o := e.Impact[name]; o.Gained+o.Lost > 0 {
				fmt.Fprintf(w, "    %s: %s; %s\n", name, some(o.Gained, "gains", "gain", o.Gains), some(o.Lost, "loses", "lose", o.Losses))
			}
		}
	}
	fmt.Fprintf(w, "%d changes\n", len(entries))
}

func some(n int, one, many string, names []string) string {
	switch {
	case n == 0:
		return "nobody " + one + " it"
	case n > len(names):
		return fmt.Sprintf("%d %s it: %s and %d more", n, many, strings.Join(names, ", "), n-len(names))
	case n == 1:
		return fmt.Sprintf("1 %s it: %s", one, names[0])
	}
	return fmt.Sprintf("%d %s it: %s", n, many, strings.Join(names, ", "))
}

func restore(ctx context.Context, c *call) (err error) {
	from, dir := c.replica(), c.dataDir()
	if c.value(replicaSetting) == "" {
		c.mistake(replicaSetting, "is required")
	}
	var at time.Time
	if text := c.value(atSetting); text != "" {
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			c.mistake(atSetting, "%q is not a time such as 2026-01-31T14:05:00Z", text)
		}
	}
	list, check := c.is(listSetting), c.is(checkSetting)
	for _, other := range []*setting{atSetting, outSetting} {
		if c.value(other) != "" && (list || check) {
			c.mistake(other, "does not go with -list and -check")
		}
	}
	if list && check {
		c.mistake(checkSetting, "does not go with -list")
	}
	if err := c.check(); err != nil {
		return err
	}
	switch {
	case list:
		return listPoints(ctx, c, from)
	case check:
		return checkReplica(ctx, c, from, dir)
	}
	if out := c.value(outSetting); out != "" {
		dir = out
	}
	lock, err := db.AcquireLock(dir, "restore", time.Now())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	r, err := replica.Restore(ctx, from, dir, at)
	if err != nil {
		return err
	}
	state := "the latest state"
	if !r.At.IsZero() {
		state = "the state of " + r.At.Format(time.RFC3339Nano)
	}
	_, err = fmt.Fprintf(c.stdout, "%s now holds %s, checked, in %s:\n%s", dir, state, r.Took.Round(time.Millisecond), holding(r.Contents))
	return err
}

func listPoints(ctx context.Context, c *call, from *replica.Config) error {
	points, err := replica.Points(ctx, from)
	if err != nil {
		return err
	}
	if len(points) == 0 {
		return errors.New("nothing in the replica can be restored")
	}
	for _, p := range points {
		fmt.Fprintf(c.stdout, "%s  %d\n", p.At.Format("2006-01-02T15:04:05.000Z"), p.Position)
	}
	return nil
}

// checkReplica is the drill by hand: it says what would come back, and what would not.
func checkReplica(ctx context.Context, c *call, from *replica.Config, dir string) error {
	r, err := replica.Check(ctx, from, os.TempDir())
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "The replica can be restored: that took %s, and what came is whole.\n%s", r.Took.Round(time.Millisecond), holding(r.Contents))
	here, err := db.InspectBeside(ctx, dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if has, err := db.HasEntry(ctx, dir, r.Contents.Last); err != nil {
		return err
	} else if !has && r.Contents.Entries > 0 {
		return fmt.Errorf("the replica has changes that %s lacks: it is of another server, or the directory is out of date", dir)
	}
	_, err = fmt.Fprintf(c.stdout, "%s is at revision %d, %d ahead.\n", dir, here.Revision, here.Revision-r.Contents.Revision)
	return err
}

// holding tells people what a database holds.
func holding(h db.Contents) string {
	if h.Empty {
		return "  nothing yet\n"
	}
	last := "none"
	if h.Entries > 0 {
		last = fmt.Sprintf("%s, %s %s %s by %s", h.Last.At.Format(time.RFC3339Nano), h.Last.Kind, h.Last.Name, h.Last.Action, h.Last.Actor)
	}
	return fmt.Sprintf("  revision     %d\n  last change  %s\n  flags        %d\n  tenants      %d\n  partners     %d\n  log entries  %d\n",
		h.Revision, last, h.Flags, h.Tenants, h.Partners, h.Entries)
}

// verify checks the log's chain, and then SQLite's own pages. It writes nothing.
func verify(ctx context.Context, c *call) error {
	dir, noted := c.dataDir(), strings.ToLower(c.value(headSetting))
	if hash, err := hex.DecodeString(noted); err != nil || len(hash) != sha256.Size && noted != "" {
		c.mistake(headSetting, "must be the 64 hex digits of a hash")
	}
	if err := c.check(); err != nil {
		return err
	}
	chain, err := db.CheckChainBeside(ctx, dir, noted)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w in %s", db.ErrNoDatabase, dir)
	case err != nil:
		return err
	case chain.Wrong != "":
		return fmt.Errorf("the log is not as it was written: %s", chain.Wrong)
	}
	_, err = fmt.Fprintf(c.stdout, "%d entries, chain whole, last hash %s\n", chain.Entries, chain.Head)
	return err
}

func versions(ctx context.Context, c *call) error {
	if err := c.check(); err != nil {
		return err
	}
	sqlite, err := db.SQLiteVersion(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "platform-api %s\ncommit %s\n%s %s/%s\nSQLite %s\n",
		buildVersion(), buildCommit(), runtime.Version(), runtime.GOOS, runtime.GOARCH, sqlite)
	return err
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

func buildCommit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
