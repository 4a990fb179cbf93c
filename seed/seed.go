// Package seed plants what every appliance begins with, and the demo registry, through db's own methods.
package seed

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

//go:embed seeds.json
var seedsJSON []byte

//go:embed demo.json
var demoJSON []byte

// Actor is who the history names for seeds.
const Actor = "system:seed"

// Seeds returns the ten flags and the tenant that every appliance begins with.
func Seeds() (flags.Document, error) {
	d, err := flags.DecodeDocument(seedsJSON)
	if err != nil {
		return d, fmt.Errorf("seeds.json: %w", err)
	}
	for i := range d.Tenants { // Dezky itself is in its own identity provider from the start
		d.Tenants[i].ProvisioningStatus = map[string]string{"authentik": "ok"}
	}
	return d, nil
}

// Plant creates the seeds that were never there. With demo it also adds the demo registry and its
// history, backdated from now, if the registry is empty but for the seeds.
func Plant(ctx context.Context, d *db.DB, demo bool, now time.Time) error {
	seeds, err := Seeds()
	if err != nil {
		return err
	}
	empty, err := emptyButFor(ctx, d, seeds)
	if err != nil {
		return err
	}
	if !demo || !empty {
		if err := d.Plant(ctx, db.By{Actor: Actor, Via: flags.ViaSeed}, seeds); err != nil {
			return fmt.Errorf("plant the seeds: %w", err)
		}
		return nil
	}
	story, err := demoStory(now)
	if err != nil {
		return fmt.Errorf("demo.json: %w", err)
	}
	story = slices.Insert(story, 0, db.Step{By: db.By{Actor: Actor, Via: flags.ViaSeed, At: story[0].By.At.Add(-time.Hour)}, Plant: &seeds})
	last, err := d.History(ctx, db.HistoryFilter{Limit: 1})
	if err != nil {
		return err
	}
	if len(last) > 0 {
		fit(story, last[0].At, now)
	}
	if story, err = adapt(ctx, d, story); err != nil {
		return err
	}
	if err := d.Tell(ctx, story); err != nil {
		return fmt.Errorf("plant the demo registry: %w", err)
	}
	return nil
}

// PlantLater is Plant once changes are not frozen any more, or until ctx ends.
func PlantLater(ctx context.Context, d *db.DB, demo bool, now func() time.Time) error {
	wake, end := d.Live().Subscribe()
	defer end()
	for {
		err := Plant(ctx, d, demo, now())
		var frozen *flags.Frozen
		if !errors.As(err, &frozen) {
			return err
		}
		timer := time.NewTimer(frozen.Until.Sub(now()))
		select {
		case <-timer.C:
		case <-wake: // it may have been ended, or have another end
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// emptyButFor tells whether the registry holds no partner and no tenant beside those of seeds, none of
// which an operator has removed.
func emptyButFor(ctx context.Context, d *db.DB, seeds flags.Document) (bool, error) {
	s := d.Current()
	here := 0
	for _, t := range seeds.Tenants {
		if s.Tenant(*t.Slug) != nil {
			here++
			continue
		}
		if log, err := d.History(ctx, db.HistoryFilter{Tenant: *t.Slug, Limit: 1}); err != nil || len(log) > 0 {
			return false, err
		}
	}
	return len(s.Partners()) == 0 && len(s.Tenants()) == here, nil
}

// adapt takes out of a story the steps about flags that are or were somebody's before it, which stay as
// they are, and the environments that are not known here.
func adapt(ctx context.Context, d *db.DB, story []db.Step) ([]db.Step, error) {
	var out []db.Step
	for _, step := range story {
		n := cmp.Or(step.Create, step.Patch, step.Delete, step.Restore)
		if n == nil {
			out = append(out, step)
			continue
		}
		ever, err := d.EverFlag(ctx, n.Key)
		if err != nil {
			return nil, err
		}
		if ever {
			continue
		}
		if names, scoped := n.Scope[flags.AxisEnvironments]; scoped {
			n.Scope[flags.AxisEnvironments] = slices.DeleteFunc(names, func(name string) bool { return !d.Current().HasEnvironment(name) })
		}
		out = append(out, step)
	}
	return out, nil
}

// fit squeezes a story between the log's last entry and now, because a log never goes back in time.
func fit(story []db.Step, from, to time.Time) {
	first := story[0].By.At
	if !first.Before(from) {
		return
	}
	scale := max(0, float64(to.Sub(from))) / float64(to.Sub(first))
	for i := range story {
		story[i].By.At = from.Add(time.Duration(float64(story[i].By.At.Sub(first)) * scale))
	}
}

// demoStory reads the demo's story, each step so long before now as it says.
func demoStory(now time.Time) ([]db.Step, error) {
	var file struct {
		Story []struct {
			Ago         string
			Actor       string
			Partner     json.RawMessage
			Tenant      json.RawMessage
			PatchTenant json.RawMessage
			Create      json.RawMessage
			Patch       json.RawMessage
			Delete      json.RawMessage
			Restore     json.RawMessage
		}
	}
	dec := json.NewDecoder(bytes.NewReader(demoJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, err
	}
	if len(file.Story) == 0 {
		return nil, errors.New("tells nothing")
	}
	story := make([]db.Step, len(file.Story))
	for i, s := range file.Story {
		ago, err := flags.ParseDuration(s.Ago)
		if err != nil {
			return nil, fmt.Errorf("step %d: ago: %w", i, err)
		}
		step := db.Step{By: db.By{Actor: s.Actor, Via: flags.ViaConsole, At: now.Add(-ago)}}
		if strings.HasPrefix(s.Actor, "token:") {
			step.By.Via = flags.ViaToken
		}
		restore := s.Restore
		if restore != nil {
			var r struct {
				Key     string
				Version int64
				Note    string
			}
			if err := json.Unmarshal(restore, &r); err != nil {
				return nil, fmt.Errorf("step %d: %w", i, err)
			}
			step.Restore, step.Version = &flags.NewFlag{Key: r.Key, Patch: flags.Patch{Note: r.Note}}, r.Version
		}
		err = errors.Join(
			decode(s.Partner, &step.Partner, flags.DecodePartner),
			decode(s.Tenant, &step.Tenant, flags.DecodeTenant),
			decode(s.PatchTenant, &step.PatchTenant, flags.DecodeTenant),
			decode(s.Create, &step.Create, flags.DecodeNewFlag),
			decode(s.Patch, &step.Patch, flags.DecodeNewFlag),
			decode(s.Delete, &step.Delete, flags.DecodeNewFlag),
		)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
		story[i] = step
	}
	return story, nil
}

func decode[T any](from json.RawMessage, to **T, decode func([]byte) (T, error)) error {
	if from == nil {
		return nil
	}
	x, err := decode(from)
	*to = &x
	return err
}
