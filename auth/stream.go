package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
	"time"
)

// streamWindow is how long the credential of a stream stays the same; it is good until the end of the next
// one, so for one to two hours.
const streamWindow = time.Hour

// streamVersion begins every credential, so that none of another making is taken for one.
const streamVersion = 1

// Sizes of a credential's parts, in bytes.
const (
	streamHead  = 9  // version, the window in which it ends
	tenantMost  = 63 // as long as a slug can be
	streamLeast = streamHead + 2 + sha256.Size
	streamMost  = streamLeast + 255 + tenantMost
)

// StreamKeys makes and opens the credentials in the URLs of event streams, where no header can be sent
// (EventSource). A credential opens one stream, which tells only that something changed, and nothing else.
type StreamKeys struct{ signers []*sync.Pool } // of *signer, one pool a key

type signer struct {
	mac  hash.Hash
	body []byte
	text []byte
}

// sign returns the body with its signature; the result is the signer's until its next use.
func (s *signer) sign(body []byte) []byte {
	s.mac.Reset()
	s.mac.Write(body)
	return s.mac.Sum(body)
}

// NewStreamKeys derives the keys from session keys: the first signs, all verify.
func NewStreamKeys(keys [][]byte) (*StreamKeys, error) {
	k := &StreamKeys{}
	for _, key := range keys {
		if len(key) != SessionKeySize {
			return nil, fmt.Errorf("a session key has %d bytes, not %d", len(key), SessionKeySize)
		}
		sign, err := hkdf.Key(sha256.New, key, nil, "event stream credential", sha256.Size)
		if err != nil {
			return nil, err
		}
		k.signers = append(k.signers, &sync.Pool{New: func() any { return &signer{mac: hmac.New(sha256.New, sign)} }})
	}
	if len(k.signers) == 0 {
		return nil, errors.New("no session key")
	}
	return k, nil
}

// Window numbers the hours in which Issue's result stays the same.
func (k *StreamKeys) Window(now time.Time) int64 { return now.Unix() / int64(streamWindow/time.Second) }

// Issue returns the credential of a tenant's stream for a principal: of 60 to 170 characters that need no
// escaping in a URL. A tenant longer than a slug is none of the registry's, and is left out.
func (k *StreamKeys) Issue(p *Principal, tenant string, now time.Time) string {
	if len(tenant) > tenantMost {
		tenant = ""
	}
	s := k.signers[0].Get().(*signer)
	defer k.signers[0].Put(s)
	b := append(s.body[:0], streamVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(k.Window(now)+1))
	b = append(append(b, byte(len(p.TokenID))), p.TokenID...)
	b = append(append(b, byte(len(tenant))), tenant...)
	s.body = s.sign(b)
	s.text = base64.RawURLEncoding.AppendEncode(s.text[:0], s.body)
	return string(s.text)
}

// StreamGrant is what a stream's credential says.
type StreamGrant struct {
	Tenant  string // whose flags the reader follows; "" is none of the registry's
	TokenID string // of the API token by which it was asked for, or ""
	Until   time.Time
}

// Open reads a credential. The error is ErrToken for one that is not ours, or has expired; whether its API
// token is still good is for Tokens to say.
func (k *StreamKeys) Open(credential string, now time.Time) (StreamGrant, error) {
	if len(credential) > base64.RawURLEncoding.EncodedLen(streamMost) || strings.ContainsAny(credential, "\r\n") { // which base64 skips
		return StreamGrant{}, ErrToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(credential)
	if err != nil || len(b) < streamLeast || !k.signed(b) || b[0] != streamVersion {
		return StreamGrant{}, ErrToken
	}
	ends := int64(binary.BigEndian.Uint64(b[1:streamHead]))
	g := StreamGrant{Until: time.Unix((ends+1)*int64(streamWindow/time.Second), 0)}
	rest := b[streamHead : len(b)-sha256.Size] // Issue made it, so its lengths are right
	g.TokenID, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
	g.Tenant = string(rest[1 : 1+rest[0]])
	if !now.Before(g.Until) {
		return StreamGrant{}, ErrToken
	}
	return g, nil
}

// signed tells whether one of the keys made the signature at the end.
func (k *StreamKeys) signed(b []byte) bool {
	end := len(b) - sha256.Size
	for _, pool := range k.signers {
		s := pool.Get().(*signer)
		s.body = s.sign(append(s.body[:0], b[:end]...))
		ok := hmac.Equal(s.body[end:], b[end:])
		pool.Put(s)
		if ok {
			return true
		}
	}
	return false
}
