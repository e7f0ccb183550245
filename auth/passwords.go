package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"flyscreen/gateway/fault"
)

const (
	// PasswordIterations is the work factor of NewPassword, about a tenth of a
	// second on today's machines (OWASP's advice for PBKDF2-HMAC-SHA512).
	PasswordIterations = 210_000
	// maxIterations bounds what a line may make a check cost: a few seconds.
	maxIterations = 10_000_000

	saltBytes = 12 // as mosquitto_passwd writes it
	hashBytes = sha512.Size
	// maxPasswordBytes is what MQTT can carry.
	maxPasswordBytes = 65535
)

// passwords is what a file in the format of mosquitto_passwd holds, by user.
type passwords struct {
	byUser map[string]password
	// nobody is checked for users that are not there, so that the time of an
	// answer does not tell who is.
	nobody password
}

type password struct {
	iterations int
	salt, hash []byte
	print      digest // of the line
}

// readPasswords reads user:$7$iterations$salt$hash lines (PBKDF2 with
// HMAC-SHA-512); empty lines and those that begin with # do not count.
func readPasswords(text []byte) (*passwords, error) {
	f := &passwords{byUser: map[string]password{}, nobody: password{iterations: 1, salt: make([]byte, saltBytes), hash: make([]byte, hashBytes)}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxKeysBytes)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		user, p, err := readPassword(line)
		if _, twice := f.byUser[user]; err == nil && twice {
			err = errors.New("names a user who has a line already")
		}
		if err != nil {
			return nil, fmt.Errorf("the file of passwords, line %d %w", n, err)
		}
		f.byUser[user] = p
		f.nobody.iterations = max(f.nobody.iterations, p.iterations)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("the file of passwords: %w", err)
	}
	return f, nil
}

func readPassword(line string) (user string, p password, err error) {
	user, text, ok := strings.Cut(line, ":")
	if !ok {
		return "", p, errors.New("is not of the form user:$7$…")
	}
	if err := checkSubject(user); err != nil {
		return "", p, fmt.Errorf("names a user that %w", err)
	}
	parts := strings.Split(text, "$")
	if len(parts) < 2 || parts[0] != "" || parts[1] != "7" {
		return "", p, errors.New("holds no $7$ hash, the only kind that is read; make the line anew with mosquitto_passwd or flyscreen passwd")
	}
	if len(parts) != 5 {
		return "", p, errors.New("is not of the form user:$7$iterations$salt$hash")
	}
	if p.iterations, err = strconv.Atoi(parts[2]); err != nil || p.iterations < 1 || p.iterations > maxIterations {
		return "", p, fmt.Errorf("has a number of iterations that is not from 1 to %d", maxIterations)
	}
	if p.salt, err = base64.StdEncoding.Strict().DecodeString(parts[3]); err != nil || len(p.salt) < 8 || len(p.salt) > 64 {
		return "", p, errors.New("has a salt that is not 8 to 64 bytes in base64")
	}
	if p.hash, err = base64.StdEncoding.Strict().DecodeString(parts[4]); err != nil || len(p.hash) != hashBytes {
		return "", p, fmt.Errorf("has a hash that is not %d bytes in base64", hashBytes)
	}
	p.print = sha256.Sum256([]byte(line))
	return user, p, nil
}

// NewPassword makes a line for the file of passwords, which mosquitto reads too.
func NewPassword(user, secret string, iterations int) (line string, err error) {
	if err := checkSubject(user); err != nil {
		return "", fmt.Errorf("the user's name %w", err)
	}
	switch {
	case strings.Contains(user, ":"):
		return "", errors.New(`the user's name holds a ":", which ends it in the file`)
	case user[0] == '#':
		return "", errors.New(`the user's name begins with "#", like a comment`)
	case strings.TrimRight(user, " \t\r") != user || strings.TrimLeft(user, " \t") != user:
		return "", errors.New("the user's name begins or ends with a space")
	case secret == "":
		return "", errors.New("the password is empty")
	case len(secret) > maxPasswordBytes || strings.ContainsAny(secret, "\x00\r\n") || !utf8.ValidString(secret):
		return "", errors.New("the password is too long, not UTF-8, or holds a line break")
	case iterations < 1 || iterations > maxIterations:
		return "", fmt.Errorf("the number of iterations is not from 1 to %d", maxIterations)
	}
	p := password{iterations: iterations, salt: make([]byte, saltBytes)}
	_, _ = rand.Read(p.salt) // never fails
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s:$7$%d$%s$%s", user, iterations, encode(p.salt), encode(p.derive(secret))), nil
}

func (p password) derive(secret string) []byte {
	key, err := pbkdf2.Key(sha512.New, secret, p.salt, p.iterations, hashBytes)
	if err != nil { // only for a length that cannot be
		return nil
	}
	return key
}

// holds reports whether the line that p was checked with is still there. A nil f
// has no lines.
func (f *passwords) holds(p Principal) bool {
	if f == nil {
		return false
	}
	line, known := f.byUser[p.Subject]
	return known && line.print == p.proof
}

func (a *Authenticator) setPasswords(text []byte) error {
	f, err := readPasswords(text)
	if err == nil {
		a.passwords.Store(f)
	}
	return err
}

// Password returns whom user and password stand for; address is whose wrong tries
// are counted. It may wait for other checks, at most until ctx is done. The error
// is a *fault.Error: Unauthenticated, which does not tell a wrong user from a
// wrong password; RateLimited after too many wrong tries; Overloaded.
func (a *Authenticator) Password(ctx context.Context, user, secret, address string) (Principal, error) {
	f := a.passwords.Load()
	if f == nil {
		return Principal{}, fault.New(fault.Unauthenticated, "user name and password (Basic) are not accepted here; send Authorization: Bearer <token>")
	}
	line, known := f.byUser[user]
	if !known {
		line = f.nobody
	}
	fits, err := a.guard.check(ctx, line, user, secret, address)
	if err != nil {
		return Principal{}, err
	}
	if !fits || !known {
		return Principal{}, fault.New(fault.Unauthenticated, "the user name or the password is wrong")
	}
	return a.Current(Principal{Kind: KindPassword, Subject: user, proof: line.print})
}
