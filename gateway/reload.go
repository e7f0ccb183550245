package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"flyscreen/gateway/config"
)

// watchEvery is how often files are looked at; a change counts when a file has
// looked the same twice, so that one which is being written is not read. Tests
// shorten it.
var watchEvery = time.Second

// watched is a file whose content may change without a restart. Its fields belong
// to the goroutine of watchFiles.
type watched struct {
	key  string // of the configuration
	path string
	use  func(text []byte) error // takes the new content, or keeps the old and says why
	trim bool                    // of a secret: the line's end is not part of it

	seen, read look // at the file: the last one, and the one at which it was read
	sum        [sha256.Size]byte
}

// look is what tells without reading that a file may have changed.
type look struct {
	info os.FileInfo
	err  string
}

func (l look) same(other look) bool {
	if l.info == nil || other.info == nil {
		return l.info == nil && other.info == nil && l.err == other.err
	}
	return os.SameFile(l.info, other.info) && l.info.Size() == other.info.Size() && l.info.ModTime().Equal(other.info.ModTime())
}

// files are those that say who may do what: keys, secrets, passwords, rules.
func (g *Gateway) files() (all []*watched) {
	a := g.config.Auth
	add := func(key, path string, text []byte, use func([]byte) error) *watched {
		w := &watched{key: key, path: path, use: use, sum: sha256.Sum256(text)}
		if path != "" {
			all = append(all, w)
		}
		return w
	}
	add("auth.api_keys_file", a.APIKeys.Path, a.APIKeys.Text, g.auth.SetAPIKeys)
	add("auth.passwords_file", a.Passwords.Path, a.Passwords.Text, g.auth.SetPasswords)
	add("auth.acl_file", a.ACL.Path, a.ACL.Text, g.auth.SetACL)
	for n, i := range a.Issuers {
		key := fmt.Sprintf("auth.issuers[%d].", n)
		add(key+"keys_file", i.KeysFile, i.Keys, func(text []byte) error { return g.auth.SetIssuer(n, nil, text) })
		secret := add(key+"secret_file", i.SecretFile, []byte(i.Secret), func(text []byte) error { return g.auth.SetIssuer(n, text, nil) })
		secret.trim = true
	}
	return all
}

// Reload reads the files anew in which keys, passwords and rules stand, without
// waiting for their next look. Streams go on. A file that is bad keeps its old
// state; the log says why. It returns when it has been asked for, not when it is
// done.
func (g *Gateway) Reload() {
	select {
	case g.reload <- struct{}{}:
	default: // asked for already
	}
}

// watchFiles takes changed files in until ctx is done.
func (g *Gateway) watchFiles(ctx context.Context) error {
	files := g.files()
	for _, w := range files {
		w.seen = lookAt(w.path)
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		forced := false
		select {
		case <-ctx.Done():
			return nil
		case <-g.reload:
			forced = true
			g.log.Info("reading the files of keys, passwords and rules anew", "files", len(files))
		case <-tick.C:
		}
		for _, w := range files {
			g.takeIn(w, forced)
		}
	}
}

func lookAt(path string) (l look) {
	info, err := os.Stat(path)
	if err != nil {
		return look{err: err.Error()}
	}
	return look{info: info}
}

// takeIn reads a file that has changed and settled, or that must be read anyway.
func (g *Gateway) takeIn(w *watched, forced bool) {
	now := lookAt(w.path)
	settled := now.same(w.seen)
	w.seen = now
	if !forced && (!settled || now.same(w.read)) {
		return
	}
	w.read = now
	text, err := config.ReadFile(w.path)
	if w.trim {
		text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	}
	sum := sha256.Sum256(text)
	if err == nil && sum == w.sum {
		return
	}
	if err == nil {
		err = w.use(text)
	}
	if err != nil {
		g.log.Error("a file is bad; what it said before goes on", "key", w.key, "file", w.path, "err", oneLine(err))
		return
	}
	w.sum = sum
	g.log.Info("a file has changed and counts now", "key", w.key, "file", w.path)
}

// oneLine joins what was joined.
func oneLine(err error) error {
	joined, is := err.(interface{ Unwrap() []error })
	if !is {
		return err
	}
	text := ""
	for i, e := range joined.Unwrap() {
		if i > 0 {
			text += "; "
		}
		text += e.Error()
	}
	return errors.New(text)
}
