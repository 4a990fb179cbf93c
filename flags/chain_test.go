package flags

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// The form that is hashed is a contract: whoever kept a hash or an export checks it by docs/history.md.
func TestLineSum(t *testing.T) {
	l := Line{ID: 41, At: LineTime(1767323045006), Revision: 57, Actor: "øps@dezky.example", Kind: KindFlag, Name: "search", Action: Updated,
		Version: new(int64(3)), Note: "a:b", Changes: `{"pct":{"from":10,"to":25}}`, Impact: new("{}"), Via: ViaConsole,
		Subject: "s", Issuer: "https://id", Client: "c", Previous: "ab"}
	text := "17:dezky log entry 12:ab2:4124:2026-01-02T03:04:05.006Z2:5718:øps@dezky.example4:flag6:search7:updated1:33:a:b" +
		`27:{"pct":{"from":10,"to":25}}2:{}7:console1:s10:https://id1:c`
	if got, want := l.Sum(), sha256.Sum256([]byte(text)); got != want {
		t.Errorf("Sum() is not the hash of %s", text)
	}
	sum := l.Sum()
	if l.Hash = hex.EncodeToString(sum[:]); !l.Whole() {
		t.Error("an entry with its hash is not whole")
	}
	without := l
	without.Version, without.Impact = nil, nil
	text = "17:dezky log entry 12:ab2:4124:2026-01-02T03:04:05.006Z2:5718:øps@dezky.example4:flag6:search7:updated-3:a:b" +
		`27:{"pct":{"from":10,"to":25}}-7:console1:s10:https://id1:c`
	if got, want := without.Sum(), sha256.Sum256([]byte(text)); got != want {
		t.Errorf("without version and impact: Sum() is not the hash of %s", text)
	}
	if without.Whole() {
		t.Error("an entry that lost its version is whole")
	}
}
