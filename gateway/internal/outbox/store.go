package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	fileName = "outbox.db"
	// lockWait is how long the file may be in another process's hands before opening fails.
	lockWait = 300 * time.Millisecond
	// roomy is when a file is compacted at the start: that large, and half of it free.
	roomy = 16 << 20
)

var (
	bucketMessages = []byte("messages")   // by sequence number
	bucketPoison   = []byte("quarantine") // by sequence number
	bucketAnswers  = []byte("answers")    // by id
	bucketMeta     = []byte("meta")
	buckets        = [][]byte{bucketMessages, bucketPoison, bucketAnswers, bucketMeta}
	keyCount       = []byte("count") // of messages: one that cannot be reached is missed
)

// store is the file.
type store struct {
	db    *bbolt.DB
	count uint64 // of messages; the committer's own, as is
	floor uint64 // below which everything is delivered
}

// damage is why a file is not used as it is.
type damage struct{ what error }

func (d damage) Error() string { return "the outbox's file is damaged: " + d.what.Error() }
func (d damage) Unwrap() error { return d.what }

// Exists returns nil if dir holds an outbox, or what one can be made of.
func Exists(dir string) error {
	_, err := os.Stat(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		if _, other := os.Stat(filepath.Join(dir, fileName+".new")); other == nil {
			return nil
		}
	}
	return err
}

// openStore opens the file in dir, or makes one. A damaged file is moved aside and
// what is readable is taken over; moved is then its new name.
func openStore(dir string) (s *store, moved string, cause error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", nil, err
	}
	path := filepath.Join(dir, fileName)
	if err := finishReplacing(path); err != nil {
		return nil, "", nil, err
	}
	s, err = openChecked(path)
	var d damage
	if errors.As(err, &d) {
		if moved, err = salvage(path); err != nil {
			return nil, "", d, fmt.Errorf("%w; taking over what is readable: %w", d, err)
		}
		s, err = openChecked(path)
		cause = d
	}
	if err != nil {
		return nil, moved, cause, err
	}
	s, err = s.compacted(path)
	return s, moved, cause, err
}

// openChecked opens the file and reads all of it once. Faults and panics of the
// library, which trusts its file, are damage.
func openChecked(path string) (s *store, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s = &store{}
	defer func() {
		if v := recover(); v != nil {
			err = damage{fmt.Errorf("%v", v)}
		}
		if err != nil && s != nil {
			s.close()
			s = nil
		}
	}()
	if err := checkMetas(path); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s: another process has it open", path)
	case errors.Is(err, fs.ErrPermission), isPathError(err):
		return nil, err
	case err != nil:
		return nil, damage{err}
	}
	s.db = db
	if err := s.complete(path); err != nil {
		return nil, damage{err}
	}
	return s, s.prepare()
}

// checkMetas reads the library's two root pages. It makes do with one of them, and
// then silently goes back by a commit, which somebody was promised.
func checkMetas(path string) error {
	const header, size = 16, 64 // of the page; of what the checksum, its last 8 bytes, covers and itself
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || info.Size() == 0 { // the library makes a new one of an empty file
		return err
	}
	pageSize := int64(0)
	for page := range int64(2) {
		b := make([]byte, header+size)
		if _, err := f.ReadAt(b, page*pageSize); err != nil {
			return damage{fmt.Errorf("root page %d: %w", page, err)}
		}
		meta := b[header:]
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:size-8]) // never fails
		if sum.Sum64() != binary.NativeEndian.Uint64(meta[size-8:]) {
			return damage{fmt.Errorf("root page %d does not fit its checksum", page)}
		}
		pageSize = int64(binary.NativeEndian.Uint32(meta[8:]))
	}
	return nil
}

func isPathError(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// complete checks that the file has the pages that it says it has, that they hang
// together, and that each record is whole.
func (s *store) complete(path string) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("it was cut off: %d bytes of %d are there", info.Size(), tx.Size())
		}
		var first error
		for err := range tx.Check() { // to the end: it runs in a goroutine
			if first == nil {
				first = err
			}
		}
		if first != nil {
			return first
		}
		n := uint64(0)
		for _, name := range [][]byte{bucketMessages, bucketPoison, bucketAnswers} {
			b := tx.Bucket(name)
			if b == nil {
				continue
			}
			if err := b.ForEach(func(k, v []byte) error {
				if _, _, _, err := open(v); err != nil {
					return fmt.Errorf("%s %x: %w", name, k, err)
				}
				if &name[0] == &bucketMessages[0] {
					n++
				}
				return nil
			}); err != nil {
				return err
			}
		}
		if meta := tx.Bucket(bucketMeta); meta != nil {
			if v := meta.Get(keyCount); len(v) != 8 || binary.BigEndian.Uint64(v) != n {
				return fmt.Errorf("it has %d messages, not the %x that it should have", n, v)
			}
		}
		s.count = n
		return nil
	})
}

// prepare makes the buckets of a new file.
func (s *store) prepare() error {
	have := false
	if err := s.db.View(func(tx *bbolt.Tx) error { have = tx.Bucket(bucketMeta) != nil; return nil }); err != nil || have {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return s.putCount(tx)
	})
}

func (s *store) putCount(tx *bbolt.Tx) error {
	return tx.Bucket(bucketMeta).Put(keyCount, binary.BigEndian.AppendUint64(nil, s.count))
}

func (s *store) close() {
	if s.db != nil {
		defer func() { _ = recover() }() // of a damaged one
		_ = s.db.Close()
	}
}

// compacted gives back the space that a large, half empty file holds; it never
// shrinks otherwise.
func (s *store) compacted(path string) (*store, error) {
	size, free := int64(0), 0
	if err := s.db.View(func(tx *bbolt.Tx) error {
		size, free = tx.Size(), s.db.Stats().FreePageN*s.db.Info().PageSize
		return nil
	}); err != nil {
		return s, err
	}
	if size < roomy || int64(free) < size/2 {
		return s, nil
	}
	small, err := bbolt.Open(path+".new", 0o600, &bbolt.Options{Timeout: lockWait})
	if err != nil {
		return s, nil //nolint:nilerr // no room to save room: go on with what there is
	}
	err = errors.Join(bbolt.Compact(small, s.db, 4<<20), small.Close())
	if err != nil {
		_ = os.Remove(path + ".new")
		return s, nil //nolint:nilerr // as above
	}
	s.close()
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	if err := syncDir(path); err != nil {
		return nil, err
	}
	return openChecked(path)
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// syncDir makes renames in path's directory durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
