package authtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// WitnessResource is the resource (RFC 8707) for which the witness gives JWT access tokens.
const WitnessResource = "urn:dezky:platform-api"

// Witness starts a second, independent provider, npm's oidc-provider, which ends with the test, and returns
// its issuer. It knows the client ConsoleID with that redirect URI, ServiceID for client_credentials, and
// the people ops, viewer and stranger; it signs ops in without asking, or whom login_hint names. Where Node
// or its packages are missing the test is skipped, but fails in CI.
func Witness(t testing.TB, redirectURI string) (issuer string) {
	t.Helper()
	dir, err := witnessDir()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), "node", "provider.mjs", "--account", "ops", "--redirect-uri", redirectURI)
	command.Dir, command.Stderr = dir, &stderr
	stdin, err := command.StdinPipe() // node ends when it closes, even if this process is killed
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		command.Wait() // with an error: it was killed
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		command.Wait()
		t.Fatalf("the witness has not started: %v\n%s", err, stderr.Bytes())
	}
	return strings.TrimSpace(line)
}

// witnessDir finds the witness from the directory of any package of the module.
func witnessDir() (string, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", fmt.Errorf("no second provider: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no second provider: not inside the module")
		}
	}
	dir = filepath.Join(dir, "auth", "authtest", "witness")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		return "", fmt.Errorf("no second provider (npm ci in auth/authtest/witness brings it): %w", err)
	}
	return dir, nil
}
