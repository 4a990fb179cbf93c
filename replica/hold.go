package replica

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/s3"
)

// hold is the right to be the replica's one writer. Two writers leave a replica that can't be restored,
// and each believes itself in sync.
type hold interface {
	// valid returns a context that ends with the right, or why there is none now: errLapsed may pass,
	// errVanished needs another hold, and *HeldError is for good.
	valid() (context.Context, error)
	renew(ctx context.Context) error
	release(ctx context.Context) error
}

var (
	errLapsed   = errors.New("the right to write to the replica could not be renewed in time")
	errVanished = errors.New("the replica's lock is gone: it was unmounted, replaced or emptied")
)

// HeldError says that another writer has the replica.
type HeldError struct {
	Holder string // its host and data directory
	Since  time.Time
}

func (e *HeldError) Error() string {
	since := ""
	if !e.Since.IsZero() {
		since = " since " + e.Since.UTC().Format(time.RFC3339)
	}
	return "another server writes to the replica: " + e.Holder + since
}

// owner names this writer: its host and data directory, so that it is the same again after a crash, and after
// its disk was lost. Two machines or containers of one host name and path are thereby one owner, who takes the
// lease from itself at once: host names must differ, as those of containers do unless they are set.
func owner(dir string) string {
	host, _ := os.Hostname()
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return host + ":" + dir
}

// acquire takes the right to write. The error is *HeldError where another has it.
func (c *Config) acquire(ctx context.Context, owner string, p pace, log *slog.Logger) (h hold, err error) {
	if c.dir != "" {
		h, err = lockDir(c.dir, owner, time.Now())
	} else {
		h, err = c.takeLease(ctx, owner, p, log)
	}
	var held *HeldError
	switch {
	case errors.As(err, &held):
		return nil, held
	case err != nil:
		return nil, &remoteError{err}
	}
	return h, nil
}

// lockFile is what the writer of a file replica holds locked in it.
const lockFile = "writer.lock"

type fileHold struct {
	file *os.File
	name string
}

type fileHolder struct {
	Holder string    `json:"holder"`
	Since  time.Time `json:"since"`
}

func lockDir(dir, owner string, now time.Time) (*fileHold, error) {
	name := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		h := fileHolder{Holder: "its name can't be read"}
		if data, err := io.ReadAll(io.LimitReader(f, 4096)); err == nil {
			json.Unmarshal(data, &h)
		}
		return nil, &HeldError{h.Holder, h.Since}
	}
	data, err := json.Marshal(fileHolder{owner, now.UTC().Truncate(time.Second)})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(data, '\n'), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return &fileHold{f, name}, nil
}

// valid sees to it that the locked file is still the one in the replica: else what is written goes to a
// directory that nobody has locked, such as the empty one below a mount that is gone.
func (h *fileHold) valid() (context.Context, error) {
	mine, err := h.file.Stat()
	if err != nil {
		return nil, err
	}
	there, err := os.Stat(h.name)
	if err != nil || !os.SameFile(mine, there) {
		return nil, errVanished
	}
	return context.Background(), nil
}

func (h *fileHold) renew(context.Context) error   { return nil }
func (h *fileHold) release(context.Context) error { return h.file.Close() }

// lease is a hold on S3: an object that is renewed while its writer lives. It is compared and swapped by
// its ETag, so no two can have it. How long another has left it alone is measured here; its times are not read.
type lease struct {
	leaser *s3.Leaser
	pace   pace

	mu     sync.Mutex
	now    *litestream.Lease
	until  time.Time       // when it must not be relied on any more; a timer alone may fire late after a stall
	ctx    context.Context // ends at that time
	end    context.CancelCauseFunc
	expire *time.Timer
	lost   error // for good
}

// since parts an owner from when it became that.
const since = " since "

func (c *Config) takeLease(ctx context.Context, owner string, p pace, log *slog.Logger) (*lease, error) {
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	l := &lease{leaser: s3.NewLeaser(), pace: p}
	l.leaser.SetLogger(slog.New(slog.DiscardHandler))
	l.leaser.SetClient(api)
	l.leaser.Bucket, l.leaser.Path, l.leaser.TTL = c.bucket, c.prefix, p.lease
	l.leaser.Owner = owner + since + time.Now().UTC().Format(time.RFC3339Nano)
	waited := "" // the ETag of another's lease that was left alone for its whole time
	for range 4 {
		begun := time.Now()
		there, err := l.read(ctx)
		if err != nil {
			return nil, err
		}
		var mine *litestream.Lease
		switch {
		case there == nil:
			mine, err = l.leaser.AcquireLease(ctx)
		case l.sameOwner(there), there.ETag == waited: // its times are of another clock
			there.Generation++
			mine, err = l.leaser.RenewLease(ctx, there)
		case waited != "":
			return nil, heldBy(there)
		default:
			held := heldBy(there)
			log.Warn("the replica has another writer; waiting whether it is still there", "holder", held.Holder, "since", held.Since, "wait", p.lease.String())
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(p.lease):
			}
			waited = there.ETag
			continue
		}
		var exists *litestream.LeaseExistsError
		if errors.As(err, &exists) || errors.Is(err, litestream.ErrLeaseNotHeld) {
			continue // somebody was faster
		}
		if err != nil {
			return nil, fmt.Errorf("lease: %w", err)
		}
		if err := l.tryCondition(ctx, mine); err != nil {
			return nil, err
		}
		l.extend(mine, begun)
		return l, nil
	}
	return nil, errors.New("lease: others take it again and again")
}

// tryCondition makes sure that the storage refuses to overwrite where that is asked of it. One that knows no
// conditions would give the lease to everybody.
func (l *lease) tryCondition(ctx context.Context, mine *litestream.Lease) error {
	body, err := json.Marshal(mine) // what is there already, for a storage that takes it
	if err != nil {
		return err
	}
	_, err = l.leaser.Client().PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String(l.leaser.Bucket),
		Key: aws.String(l.leaser.Path + "/" + s3.DefaultLeasePath), Body: bytes.NewReader(body),
		ContentType: aws.String("application/json"), IfNoneMatch: aws.String("*")})
	if err == nil {
		return errors.New("the storage knows no conditional writes (If-None-Match), so it can't keep a second writer out")
	}
	return nil
}

func (l *lease) sameOwner(there *litestream.Lease) bool {
	mine, _, _ := strings.Cut(l.leaser.Owner, since)
	other, _, _ := strings.Cut(there.Owner, since)
	return mine == other
}

func heldBy(there *litestream.Lease) *HeldError {
	holder, text, _ := strings.Cut(there.Owner, since)
	at, _ := time.Parse(time.RFC3339Nano, text) // another program's owner tells no time
	return &HeldError{holder, at}
}

// read returns the lease as it is there, nil if there is none.
func (l *lease) read(ctx context.Context) (*litestream.Lease, error) {
	out, err := l.leaser.Client().GetObject(ctx, &awss3.GetObjectInput{
		Bucket: aws.String(l.leaser.Bucket), Key: aws.String(l.leaser.Path + "/" + s3.DefaultLeasePath)})
	var none *types.NoSuchKey
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	defer out.Body.Close()
	var there litestream.Lease
	if err := json.NewDecoder(out.Body).Decode(&there); err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	there.ETag = aws.ToString(out.ETag)
	return &there, nil
}

// extend counts from before the request, by our own clock alone, and stops a fifth short.
func (l *lease) extend(now *litestream.Lease, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = now
	if l.ctx == nil || l.ctx.Err() != nil {
		l.ctx, l.end = context.WithCancelCause(context.Background())
	}
	if l.expire != nil {
		l.expire.Stop()
	}
	end := l.end
	l.until = begun.Add(l.pace.lease * 4 / 5)
	l.expire = time.AfterFunc(time.Until(l.until), func() { end(errLapsed) })
}

func (l *lease) valid() (context.Context, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		return nil, l.lost
	}
	if !time.Now().Before(l.until) {
		l.end(errLapsed)
	}
	if l.ctx.Err() != nil {
		return nil, context.Cause(l.ctx)
	}
	return l.ctx, nil
}

// renew prolongs the lease, also one that has lapsed, as long as nobody else has taken it.
func (l *lease) renew(ctx context.Context) error {
	l.mu.Lock()
	now, lost := l.now, l.lost
	l.mu.Unlock()
	if lost != nil {
		return lost
	}
	begun := time.Now()
	next, err := l.leaser.RenewLease(ctx, now)
	if err == nil {
		l.extend(next, begun)
		return nil
	}
	there, readErr := l.read(ctx)
	switch {
	case readErr != nil:
		return errors.Join(err, readErr)
	case there == nil:
		return l.lose(errVanished)
	case there.Owner != l.leaser.Owner:
		return l.lose(heldBy(there))
	}
	if there.ETag != now.ETag { // ours, and its answer did not reach us
		l.mu.Lock()
		l.now = there
		l.mu.Unlock()
	}
	return err
}

func (l *lease) lose(cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = cause
	l.end(cause)
	return cause
}

func (l *lease) release(ctx context.Context) error {
	l.mu.Lock()
	now, lost := l.now, l.lost
	l.expire.Stop()
	l.end(errLapsed)
	l.mu.Unlock()
	if lost != nil {
		return nil
	}
	if err := l.leaser.ReleaseLease(ctx, now); err != nil && !errors.Is(err, s3.ErrLeaseAlreadyReleased) {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}
