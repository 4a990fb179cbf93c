package handlers

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/seed"
)

// sample returns the only block of code in docs/openfeature.md that is in a language and has some text.
func sample(t testing.TB, language, having string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/openfeature.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(m[1], having) {
			found = append(found, m[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("docs/openfeature.md has %d blocks of %s with %q, want 1", len(found), language, having)
	}
	return found[0]
}

// What docs/openfeature.md tells people to paste works as it stands.
func TestOpenFeatureSamples(t *testing.T) {
	t.Parallel()
	s := startWitnessed(t)
	if err := seed.Plant(t.Context(), s.db, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		stderr := &buffer{}
		command := exec.CommandContext(t.Context(), name, args...)
		command.Env, command.Stderr = append(os.Environ(), "URL="+s.proxy.URL, "TOKEN="+s.tokens["evaluate"]), stderr
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, stderr)
		}
		return string(out)
	}
	file := func(t *testing.T, name, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const printed = "true STATIC on\n"
	t.Run("curl", func(t *testing.T) {
		if _, err := exec.LookPath("curl"); err != nil {
			t.Skip(err)
		}
		var got details
		if out := run(t, "sh", "-c", sample(t, "sh", "curl")); json.Unmarshal([]byte(out), &got) != nil || got.Value != true || got.Reason != "STATIC" || got.Variant != "on" {
			t.Errorf("the answer is %s, want true, STATIC, on", out)
		}
	})
	t.Run("go", func(t *testing.T) {
		if got := run(t, "go", "run", file(t, "main.go", sample(t, "go", "package main"))); got != printed {
			t.Errorf("the program prints %q, want %q", got, printed)
		}
	})
	t.Run("node", func(t *testing.T) {
		packages := nodeModules(t)
		path := file(t, "sample.mjs", sample(t, "js", "server-sdk"))
		if err := os.Symlink(packages, filepath.Join(filepath.Dir(path), "node_modules")); err != nil {
			t.Fatal(err)
		}
		if got := run(t, "node", path); got != printed {
			t.Errorf("the program prints %q, want %q", got, printed)
		}
	})
}

// The document names the versions that are tested, for each package each time.
func TestOpenFeatureVersions(t *testing.T) {
	t.Parallel()
	var tested struct{ Dependencies map[string]string }
	text, err := os.ReadFile("testdata/openfeature/package.json")
	if err == nil {
		err = json.Unmarshal(text, &tested)
	}
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/openfeature.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(@openfeature/[a-z-]+|github\.com/open-feature/[a-z/-]+|providers/ofrep)(?:@|`+"`"+` )(v?\d+\.\d+\.\d+)`).FindAllStringSubmatch(string(doc), -1)
	if len(named) != 12 {
		t.Errorf("the document names a version %d times, want 12: %q", len(named), named)
	}
	for _, m := range named {
		if strings.HasPrefix(m[1], "@") {
			if tested.Dependencies[m[1]] != m[2] {
				t.Errorf("the document has %s %s, tested is %q", m[1], m[2], tested.Dependencies[m[1]])
			}
		} else if !strings.Contains(string(module), m[1]+" "+m[2]+"\n") {
			t.Errorf("the document has %s %s, and go.mod has not", m[1], m[2])
		}
	}
}
