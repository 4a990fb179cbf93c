package handlers_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/handlers"
	"github.com/dezky/platform-api/replica"
	"github.com/dezky/platform-api/seed"
)

// An open page says that changes exist on this machine only, as soon as that is so, and every page after it;
// the drill can be run by hand.
func TestConsole45_ReplicationInTrouble(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	dir, at := t.TempDir(), t.TempDir()
	config, err := replica.Parse("file://"+at, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	copied, err := replica.Open(t.Context(), replica.Options{Config: config, Dir: dir, FirstBoot: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { copied.Close(context.Background()) }) // after the database
	d := dbtest.OpenAt(t, dir, time.Now)
	if err := seed.Plant(t.Context(), d, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	copied.Start(d)
	s := serve(t, d, func(_ *site, a *handlers.Appliance) { a.Replica = copied })
	s.make("checkout_v2", flags.Off, 0, nil)

	p := s.tab(maria, look{})
	p.open("/operator/status")
	p.loads(func() { p.clickText("main", "Run the drill now") })
	equal(t, "the drill passed", strings.Contains(p.textOf("main"), "passed just now"), true)
	equal(t, "an alarm", p.has("#alarm.notice"), false)

	p.openLive("/operator/flags")
	if err := os.Rename(at, at+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(at, "writer.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	s.setPct("checkout_v2", 30)
	for copied.Wait(t.Context()) == nil { // it learns of the other at its next sync
	}
	s.setPct("checkout_v2", 40)
	p.waitText("#alarm.notice", "Another server writes to the replica, so changes exist on this machine only.")
	equal(t, "its role", p.attr("#alarm", "role"), "alert")
	p.open("/operator/audit")
	equal(t, "on another page", p.has("#alarm.notice"), true)
	p.loads(func() { p.click("a[href='/operator/status']") })
	equal(t, "on the status page", strings.Contains(p.textOf("main"), "taken: another server writes to the replica"), true)
}
