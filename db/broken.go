package db

import (
	"errors"
	"os"
	"sync/atomic"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// errGone says that what was opened is not what is at the path any more: a change would be acknowledged
// into a file that no restart finds.
var errGone = errors.New("its file was removed or replaced while it was in use")

// Broken tells whether an error means that the database itself can't be used, and why, in words.
func Broken(err error) (reason string, broken bool) {
	if errors.Is(err, errGone) {
		return errGone.Error(), true
	}
	var failed *sqlite.Error
	if !errors.As(err, &failed) {
		return "", false
	}
	switch failed.Code() & 0xff {
	case sqlite3.SQLITE_IOERR:
		return "the disk does not answer as it should", true
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "its file is damaged", true
	case sqlite3.SQLITE_FULL:
		return "the disk is full", true
	case sqlite3.SQLITE_CANTOPEN:
		return "its file can't be opened", true
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return "its file can't be written", true
	}
	return "", false
}

// Trouble says in words why the database can't be used now, "" if it can. What is served from the snapshot
// goes on either way. It is cheap.
func (db *DB) Trouble() string {
	err := db.Intact()
	for _, noted := range []*atomic.Pointer[error]{&db.trouble, &db.reader.trouble} {
		if last := noted.Load(); err == nil && last != nil && !errors.Is(*last, errGone) { // that is known better now
			err = *last
		}
	}
	reason, _ := Broken(err)
	return reason
}

// Intact makes sure that the database at the path is the one that was opened.
func (db *DB) Intact() error {
	now, err := os.Stat(db.path)
	if err != nil || !os.SameFile(db.file, now) {
		return errGone
	}
	return nil
}

// noteTrouble remembers whether the last transaction found the database usable.
func (db *DB) noteTrouble(err error) {
	if _, broken := Broken(err); broken {
		db.trouble.Store(&err)
	} else if err == nil {
		db.trouble.Store(nil)
	}
}
