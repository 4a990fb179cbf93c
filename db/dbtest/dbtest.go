// Package dbtest opens real databases for tests.
package dbtest

import (
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
)

// Environments are the known environments of test databases.
var Environments = []string{"production", "staging", "development"}

// Open opens a new database in a directory of the test's own.
func Open(t testing.TB) *db.DB { return OpenAt(t, t.TempDir(), time.Now) }

// OpenAt opens the database in dir, with the clock now, for integrations.
func OpenAt(t testing.TB, dir string, now func() time.Time, integrations ...string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Dir: dir, Environments: Environments, Now: now, Integrations: integrations})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
