package db

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// restoredFile marks a data directory whose database comes from a replica and has no epoch of its own yet.
const restoredFile = "platform-api.restored"

// MarkRestored says that a database from a replica is about to be put into dir. Open then begins a new
// epoch before it serves anything: a restore may have lost the last seconds and will use their revisions
// again. It belongs before the file is there, so that no crash comes between.
func MarkRestored(dir string) error {
	return mark(filepath.Join(dir, restoredFile), "The database came from a replica: its next start begins a new epoch.\n")
}

// UnmarkRestored takes that back where nothing was restored.
func UnmarkRestored(dir string) error {
	return unmark(filepath.Join(dir, restoredFile))
}

// renewEpoch begins a new epoch if the database came from a replica. The mark goes only after the commit.
func (db *DB) renewEpoch(ctx context.Context) error {
	name := filepath.Join(db.opts.Dir, restoredFile)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	err := db.write(ctx, func(tx *tx) error {
		epoch, err := db.randomHex(8)
		if err != nil {
			return err
		}
		return tx.exec("UPDATE instance SET epoch = ?", epoch)
	})
	if err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	return unmark(name)
}

// mark writes a small file that outlives a power failure.
func mark(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func unmark(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
