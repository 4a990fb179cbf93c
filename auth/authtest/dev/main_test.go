package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRun(t *testing.T) {
	for _, test := range []struct {
		name   string
		args   []string
		status int
		stdout []string
		stderr string
	}{
		{"what the child is told", []string{"-addr", "127.0.0.1:3333", "-data-dir", "here", "sh", "-c", "env | grep ^PLATFORM_API_; exit 7"}, 7, []string{
			"The console is at http://127.0.0.1:3333.",
			"Olivia Ops        dezky-operators   sees everything and may change it",
			"PLATFORM_API_OIDC_ISSUER=http://PROVIDER/application/o/dezky-operator/\n",
			"PLATFORM_API_OIDC_CLIENT_ID=dezky-console\n",
			"PLATFORM_API_OIDC_CLIENT_SECRET=dezky-console-secret\n",
			"PLATFORM_API_URL=http://127.0.0.1:3333\n",
			"PLATFORM_API_ADDR=127.0.0.1:3333\n",
			"PLATFORM_API_READ_GROUP=dezky-viewers\n",
			"PLATFORM_API_JWT_AUDIENCES=service=http://PROVIDER/application/o/dezky-operator/#dezky-service portal=http://PROVIDER/application/o/dezky-operator/#dezky-portal\n",
			"PLATFORM_API_DATA_DIR=here\n",
		}, ""},
		{"a child that ends well", []string{"true"}, 0, nil, ""},
		{"a child that is killed", []string{"sh", "-c", "kill -9 $$"}, 128 + 9, nil, ""},
		{"no such command", []string{filepath.Join(t.TempDir(), "absent")}, 1, nil, "dev: fork/exec"},
		{"no command", nil, 2, nil, "dev: no command"},
		{"unknown flag", []string{"-nope"}, 2, nil, "not defined"},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := freeAddr(t)
			var stdout, stderr bytes.Buffer
			status := run(append([]string{"-provider", addr}, test.args...), nil, &stdout, &stderr)
			if status != test.status {
				t.Errorf("status = %d, want %d: %s", status, test.status, stderr.String())
			}
			for _, want := range test.stdout {
				if want = strings.ReplaceAll(want, "PROVIDER", addr); !strings.Contains(stdout.String(), want) {
					t.Errorf("stdout has no %q:\n%s", want, stdout.String())
				}
			}
			if !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("stderr = %q, want %q", stderr.String(), test.stderr)
			}
		})
	}
}

// The printed curl gets a service's token from the running provider.
func TestPrintedToken(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip(err)
	}
	addr := freeAddr(t)
	var printed bytes.Buffer
	welcome(&printed, "http://127.0.0.1:3001", "http://"+addr+"/application/o/token/")
	_, script, _ := strings.Cut(printed.String(), "  TOKEN=")
	script, _, _ = strings.Cut(script, "\n  curl")
	var stdout, stderr bytes.Buffer
	if status := run([]string{"-provider", addr, "sh", "-c", "TOKEN=" + script + "\necho token $TOKEN"}, nil, &stdout, &stderr); status != 0 {
		t.Fatalf("status = %d: %s", status, stderr.String())
	}
	_, token, found := strings.Cut(stdout.String(), "\ntoken ")
	if !found || strings.Count(token, ".") != 2 || !strings.HasPrefix(token, "ey") {
		t.Errorf("token = %q: %s", token, stderr.String())
	}
}

func TestSignalsReachTheChild(t *testing.T) {
	t.Setenv(childVariable, "1")
	stdout, output := io.Pipe()
	signals, status := make(chan os.Signal), make(chan int)
	go func() {
		status <- run([]string{"-provider", freeAddr(t), os.Args[0]}, signals, output, io.Discard)
		output.Close()
	}()
	for lines := bufio.NewScanner(stdout); lines.Scan() && lines.Text() != "ready"; {
	}
	signals <- syscall.SIGTERM
	if got := <-status; got != 5 {
		t.Errorf("status = %d, want 5", got)
	}
}

// childVariable makes this test's binary a child that waits for SIGTERM and then exits with 5.
const childVariable = "DEV_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	fmt.Println("ready")
	<-terminated
	os.Exit(5)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
