package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// devKeyName is the file in the data directory.
const devKeyName = "dev.key"

// devKeyBytes is how many random bytes a development key is made of.
const devKeyBytes = 32

// DevKey returns the development key in dataDir and makes directory and key if
// they do not exist yet. The key is the file's text, 64 hexadecimal digits, used
// as it is, so that another tool can sign with a copy of that text. The file is
// for its owner only. Of several processes that make it at once, one wins and all
// return its key.
func DevKey(dataDir string) (key []byte, created bool, err error) {
	path := filepath.Join(dataDir, devKeyName)
	key, err = readDevKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, false, fmt.Errorf("data directory: %w", err)
	}
	created, err = writeDevKey(path)
	if err != nil {
		return nil, false, fmt.Errorf("development key: %w", err)
	}
	key, err = readDevKey(path)
	return key, created, err
}

// readDevKey refuses a key that others can read: it would not be one.
func readDevKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("development key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("development key: %s can be read by others: run chmod 600 on it, or delete it to get a new one", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("development key: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != devKeyBytes {
		return nil, fmt.Errorf("development key: %s does not hold %d hexadecimal digits: delete it to get a new one", path, 2*devKeyBytes)
	}
	return []byte(text), nil
}

// writeDevKey writes a new key beside path and links it there: the link fails if
// somebody was faster, and nobody ever sees half a key.
func writeDevKey(path string) (created bool, err error) {
	raw := make([]byte, devKeyBytes)
	_, _ = rand.Read(raw) // never fails
	f, err := os.CreateTemp(filepath.Dir(path), devKeyName+".*")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(hex.EncodeToString(raw) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, err
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}
