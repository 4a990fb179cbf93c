package flags

// NameRule says in words what IsName asks.
const NameRule = "1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit"

// IsName tells whether s can name an environment or a token: [A-Za-z0-9][A-Za-z0-9._-]{0,63}.
func IsName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64
}
