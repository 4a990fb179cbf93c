package db

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// LockFile is the file in the data directory that its one server holds locked.
const LockFile = "platform-api.lock"

// Lock is the exclusive hold of a data directory. The kernel lets go of it when the process ends,
// however that happens.
type Lock struct {
	file *os.File
}

type lockHolder struct {
	Command string    `json:"command"`
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Since   time.Time `json:"since"`
}

// AcquireLock takes the data directory, creating it if need be, for a command such as "serve". If another
// process has it, the error says which.
func AcquireLock(dir, command string, now time.Time) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		var h lockHolder
		if data, err := io.ReadAll(io.LimitReader(f, 4096)); err != nil || json.Unmarshal(data, &h) != nil {
			return nil, fmt.Errorf("the data directory %s is in use by another process", dir)
		}
		return nil, fmt.Errorf("the data directory %s is in use by \"platform-api %s\", process %d on %s, since %s",
			dir, h.Command, h.PID, h.Host, h.Since.UTC().Format(time.RFC3339))
	}
	host, _ := os.Hostname() // a nameless host is still told apart by its process
	data, err := json.Marshal(lockHolder{command, os.Getpid(), host, now.UTC().Truncate(time.Second)})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(data, '\n'), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return &Lock{f}, nil
}

// Release lets go of the data directory.
func (l *Lock) Release() error { return l.file.Close() }
