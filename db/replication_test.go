package db

import (
	"context"
	"errors"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestAcknowledgeBy(t *testing.T) {
	d := openTest(t, Options{})
	away := errors.New("away")
	var fails error
	changes, waits := 0, 0
	d.OnChange(func() {
		changes++
		if changes == 1 && d.Current().Flag("a") == nil {
			t.Error("told of a change before it is published")
		}
	})
	d.AcknowledgeBy(func(context.Context) error {
		waits++
		select { // others may write meanwhile
		case token := <-d.turn:
			d.turn <- token
		default:
			t.Error("the wait holds the turn to write")
		}
		return fails
	})
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	fails = away
	f, err := d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)})
	var not *NotReplicated
	if !errors.As(err, &not) || !errors.Is(err, away) || not.Version != 2 {
		t.Errorf("error %v, want *NotReplicated for the cause", err)
	}
	if f == nil || f.Version != 2 || d.Current().Flag("a").Pct != 7 {
		t.Errorf("the change: %s, and served is %s; want that it stands", show(f), show(d.Current().Flag("a")))
	}
	// A repetition changes nothing, and must not be acknowledged for that.
	if _, err := d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)}); !errors.As(err, &not) {
		t.Errorf("the repetition: %v, want *NotReplicated", err)
	}
	// What is refused waits for nothing.
	before := waits
	if _, err := d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(101)}); errors.As(err, &not) || err == nil {
		t.Errorf("a bad value: %v", err)
	}
	if waits != before || changes != 2 {
		t.Errorf("%d waits and %d changes, want %d and 2", waits, changes, before)
	}
}
