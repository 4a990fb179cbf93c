package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite"

	"github.com/dezky/platform-api/flags"
)

// log_hash(previous, id, at, …) is for the migration that gave the log its hashes: flags.Line.Sum of the columns
// in their order, whose types the table holds.
func init() {
	sqlite.MustRegisterDeterministicScalarFunction("log_hash", 16, func(_ *sqlite.FunctionContext, v []driver.Value) (driver.Value, error) {
		number := func(i int) int64 { n, _ := v[i].(int64); return n }
		text := func(i int) string { s, _ := v[i].(string); return s }
		previous, _ := v[0].([]byte)
		l := flags.Line{Previous: hex.EncodeToString(previous), ID: number(1), At: flags.LineTime(number(2)), Revision: number(3), Actor: text(4),
			Kind: flags.Kind(text(5)), Name: text(6), Action: flags.Action(text(7)), Note: text(9), Changes: text(10),
			Via: flags.Via(text(12)), Subject: text(13), Issuer: text(14), Client: text(15)}
		if v[8] != nil {
			l.Version = new(number(8))
		}
		if v[11] != nil {
			l.Impact = new(text(11))
		}
		sum := l.Sum()
		return sum[:], nil
	})
}

const lineColumns = entryColumns + ", hash, (SELECT p.hash FROM log p WHERE p.id < log.id ORDER BY p.id DESC LIMIT 1)"

func scanLine(row scanner) (l flags.Line, err error) {
	var at int64
	var hash, previous []byte
	err = row.Scan(&l.ID, &at, &l.Revision, &l.Actor, &l.Kind, &l.Name, &l.Action, &l.Version, &l.Note, &l.Changes, &l.Impact,
		&l.Via, &l.Subject, &l.Issuer, &l.Client, &hash, &previous)
	l.At, l.Hash, l.Previous = flags.LineTime(at), hex.EncodeToString(hash), hex.EncodeToString(previous)
	return l, err
}

// Lines returns entries of the log after the one with an id, oldest first, as they are hashed. Of the filter,
// what selects entries counts.
func (db *DB) Lines(ctx context.Context, f HistoryFilter, after int64) ([]flags.Line, error) {
	return lines(ctx, db.reader, f, after)
}

func lines(ctx context.Context, q querier, f HistoryFilter, after int64) ([]flags.Line, error) {
	where, args := f.where()
	out, err := collect(ctx, q, scanLine, "SELECT "+lineColumns+" FROM log WHERE "+where+" AND id > ? ORDER BY id LIMIT ?", append(args, after, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("log after entry %d: %w", after, err)
	}
	return out, nil
}

// Chain is what a check of the log found.
type Chain struct {
	At      time.Time     // when it began
	Took    time.Duration // how long it took
	Entries int64         // that are whole, one after the other
	Bytes   int64         // of their text
	Head    string        // hash of the last of them, in hex; "" of an empty log
	Wrong   string        // which entry is the first that is wrong, and how; "" where the chain is whole
}

// chainPage is how many entries a check reads at once: no read lasts long.
const chainPage = 1000

// CheckChain checks every entry of the log against its hash and the entry before, that none is missing, also at
// the end, and that the flags, also those of the past in flag_states, are as the log left them. A hash that was noted earlier, in hex or "", must still be
// an entry's: without one, who can write the file can cut the log's end and hide it. It blocks nobody.
func (db *DB) CheckChain(ctx context.Context, noted string) (Chain, error) {
	return checkChain(ctx, db.reader, noted, db.opts.Now)
}

// CheckChainBeside is CheckChain for dir's database, which a server may have open, followed by SQLite's own check
// of the file. It reads only, and refuses another schema than this program's.
func CheckChainBeside(ctx context.Context, dir, noted string) (Chain, error) {
	file := filepath.Join(dir, File)
	// Without a -wal nobody has it open: then it is read without making one, whose owner could lock a server out.
	alone := noWAL(file)
	c, err := checkBeside(ctx, file, noted, alone)
	if alone && (err != nil || c.Wrong != "") && !noWAL(file) { // a server came meanwhile, and changed what was read
		return checkBeside(ctx, file, noted, false)
	}
	return c, err
}

func noWAL(file string) bool {
	_, err := os.Stat(file + "-wal")
	return errors.Is(err, fs.ErrNotExist)
}

func checkBeside(ctx context.Context, file, noted string, alone bool) (Chain, error) {
	d, err := openFile(file, alone)
	if err != nil {
		return Chain{}, err
	}
	defer d.Close()
	has, err := schemaOf(ctx, d)
	if err != nil {
		return Chain{}, fmt.Errorf("schema version: %w", err)
	}
	knows, err := newestMigration()
	if err != nil {
		return Chain{}, err
	}
	if err := sameSchema(has, knows); err != nil {
		return Chain{}, err
	}
	c, err := checkChain(ctx, d, noted, time.Now)
	if err != nil || c.Wrong != "" {
		return c, err
	}
	return c, integrity(ctx, d)
}

// beginner is a pool, or a file that is read.
type beginner interface {
	querier
	BeginTx(ctx context.Context, o *sql.TxOptions) (*sql.Tx, error)
}

func checkChain(ctx context.Context, q beginner, noted string, now func() time.Time) (Chain, error) {
	c := chainCheck{Chain: Chain{At: now()}, noted: noted, found: noted == "", flags: map[string]*loggedFlag{}}
	err := c.run(ctx, q)
	c.Took = now().Sub(c.At)
	if err != nil {
		return c.Chain, fmt.Errorf("check the log: %w", err)
	}
	return c.Chain, nil
}

// chainCheck is a check of the log under way.
type chainCheck struct {
	Chain
	noted    string
	found    bool // an entry has the noted hash
	revision int64
	flags    map[string]*loggedFlag // by key
	states   int64                  // of flag_states that agree
}

// loggedFlag is a flag as the log has it.
type loggedFlag struct {
	entry, version int64
	scoped         int64             // the last entry that changed its scope
	fields         map[string]string // JSON
}

// keptState is a row of flag_states, from which questions about the past are answered.
type keptState struct {
	id, version               int64
	key                       string
	state, description, scope sql.NullString
	pct, scoped               sql.NullInt64
}

func scanKeptState(row scanner) (k keptState, err error) {
	err = row.Scan(&k.id, &k.version, &k.key, &k.state, &k.description, &k.scope, &k.pct, &k.scoped)
	return k, err
}

func (c *chainCheck) run(ctx context.Context, q beginner) error {
	for more := true; more; {
		page, err := c.read(ctx, q)
		if err != nil || c.Wrong != "" {
			return err
		}
		more = page == chainPage
	}
	// What is left, and what it must agree with, belong together.
	tx, err := q.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for more := true; more; {
		page, err := c.read(ctx, tx)
		if err != nil || c.Wrong != "" {
			return err
		}
		more = page == chainPage
	}
	return c.end(ctx, tx)
}

// read checks the next entries, and returns how many there were.
func (c *chainCheck) read(ctx context.Context, q querier) (int, error) {
	page, err := lines(ctx, q, HistoryFilter{Limit: chainPage}, c.Entries)
	if err != nil {
		return 0, err
	}
	if len(page) == 0 {
		return 0, nil
	}
	states, err := collect(ctx, q, scanKeptState, "SELECT id, version, key, state, description, scope, pct, scope_id FROM flag_states"+
		" WHERE id > ? AND id <= ? ORDER BY id", c.Entries, page[len(page)-1].ID)
	if err != nil {
		return 0, err
	}
	for _, l := range page {
		switch {
		case l.ID != c.Entries+1:
			c.Wrong = fmt.Sprintf("entry %d is missing: entry %d comes after entry %d", c.Entries+1, l.ID, c.Entries)
		case !l.Whole():
			c.Wrong = fmt.Sprintf("entry %d has another hash than what it says and the entry before it give: it was changed, put in, or follows one that was", l.ID)
		}
		if c.Wrong != "" {
			return len(page), nil
		}
		c.Entries, c.Head, c.revision = l.ID, l.Hash, l.Revision
		c.Bytes += l.Size()
		c.found = c.found || l.Hash == c.noted
		if err := c.follow(l); err != nil {
			return len(page), fmt.Errorf("entry %d: %w", l.ID, err)
		}
		if states, err = c.kept(l, states); err != nil || c.Wrong != "" {
			return len(page), err
		}
	}
	return len(page), nil
}

// kept holds the first of the states against an entry that was followed, and returns those of later entries.
func (c *chainCheck) kept(l flags.Line, states []keptState) ([]keptState, error) {
	there := len(states) > 0 && states[0].id == l.ID
	switch {
	case l.Version == nil && !there:
		return states, nil
	case l.Version == nil:
		c.Wrong = fmt.Sprintf("flag_states has a state of entry %d, which made no version of a flag", l.ID)
		return nil, nil
	case !there:
		c.Wrong = fmt.Sprintf("flag_states has no state of entry %d", l.ID)
		return nil, nil
	}
	k, f := states[0], c.flags[l.Name]
	same := k.key == l.Name && k.version == *l.Version
	if f == nil { // it was deleted
		same = same && !k.state.Valid && !k.scoped.Valid
	} else {
		same = same && f.says("state", k.state.String) && f.says("description", k.description.String) &&
			f.fields["pct"] == strconv.FormatInt(k.pct.Int64, 10) && k.scoped.Int64 == f.scoped
		if k.scope.Valid {
			var scope map[string]json.RawMessage
			if err := json.Unmarshal([]byte(k.scope.String), &scope); err != nil {
				return nil, fmt.Errorf("state of entry %d: scope: %w", l.ID, err)
			}
			for _, axis := range flags.Axes {
				same = same && string(scope[string(axis)]) == f.fields["scope."+string(axis)]
			}
		}
	}
	if !same {
		c.Wrong = fmt.Sprintf("flag_states does not have the flag %s as entry %d left it", l.Name, l.ID)
		return nil, nil
	}
	c.states++
	return states[1:], nil
}

// says tells whether a field is a text.
func (f *loggedFlag) says(field, text string) bool {
	var logged string
	return json.Unmarshal([]byte(f.fields[field]), &logged) == nil && logged == text
}

// follow takes the change of a flag.
func (c *chainCheck) follow(l flags.Line) error {
	if l.Version == nil {
		return nil
	}
	if l.Action == flags.Deleted {
		delete(c.flags, l.Name)
		return nil
	}
	var changes flags.Changes
	if err := json.Unmarshal([]byte(l.Changes), &changes); err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	f := c.flags[l.Name]
	if f == nil {
		f = &loggedFlag{fields: map[string]string{}}
		c.flags[l.Name] = f
	}
	f.entry, f.version = l.ID, *l.Version
	for name, change := range changes {
		f.fields[name] = string(change.To)
		if strings.HasPrefix(name, "scope.") {
			f.scoped = l.ID
		}
	}
	return nil
}

// end holds the end of the log against what else the database knows of it.
func (c *chainCheck) end(ctx context.Context, tx *sql.Tx) error {
	var written, revision, states int64
	err := tx.QueryRowContext(ctx, "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0), revision, (SELECT count(*) FROM flag_states) FROM instance").
		Scan(&written, &revision, &states)
	if err != nil {
		return err
	}
	switch {
	case written != c.Entries:
		c.Wrong = fmt.Sprintf("entry %d is missing: the log ends with entry %d, and %d were written", c.Entries+1, c.Entries, written)
	case revision != c.revision:
		c.Wrong = fmt.Sprintf("entry %d is missing: the last entry is of revision %d, and the database is at revision %d", c.Entries+1, c.revision, revision)
	case !c.found:
		c.Wrong = fmt.Sprintf("no entry has the hash %s: the log was cut or written anew since that was noted", c.noted)
	case states != c.states:
		c.Wrong = fmt.Sprintf("flag_states has %d states, and %d entries made one", states, c.states)
	}
	if c.Wrong != "" {
		return nil
	}
	fs, err := collect(ctx, tx, scanFlag, "SELECT "+flagColumns+" FROM flags ORDER BY key")
	if err != nil {
		return err
	}
	for _, f := range fs {
		logged := c.flags[f.Key]
		delete(c.flags, f.Key)
		if logged == nil {
			c.Wrong = fmt.Sprintf("the flag %s is there, and no entry made it", f.Key)
			return nil
		}
		var differ []string
		if f.Version != logged.version {
			differ = append(differ, "version")
		}
		now := flags.DiffFlag(nil, f)
		for _, name := range now.Fields() {
			if string(now[name].To) != logged.fields[name] {
				differ = append(differ, name)
			}
		}
		if len(differ) > 0 {
			c.Wrong = fmt.Sprintf("the flag %s is not as entry %d left it: %s", f.Key, logged.entry, strings.Join(differ, ", "))
			return nil
		}
	}
	for key, logged := range c.flags {
		c.Wrong = fmt.Sprintf("the flag %s of entry %d is not there, and no entry deleted it", key, logged.entry)
	}
	return nil
}
