package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// salvage replaces the damaged file at path by a new one with all that is readable
// in it, and returns where the damaged one is now. It does not trust the file's
// index: it looks for records in the bytes. Among them are old ones, in pages that
// were given up; what is below the last floor is left out. The rest may be
// delivered again, which is the lesser evil.
func salvage(path string) (moved string, err error) {
	found, err := scan(path)
	if err != nil {
		return "", err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := found.write(fresh); err != nil {
		return "", errors.Join(err, os.Remove(fresh))
	}
	moved = fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(path, moved); err != nil {
		return "", err
	}
	return moved, finishReplacing(path)
}

// finishReplacing puts the new file in the place of one that was moved aside; a
// crash may have come between the two. A new file beside the old one was not
// finished.
func finishReplacing(path string) error {
	if _, err := os.Stat(path + ".new"); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		return os.Remove(path + ".new")
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(path)
}

// findings are the readable records of a damaged file.
type findings struct {
	messages map[uint64]*message
	poison   map[uint64]*message
	answers  map[[32]byte]*answer
}

// scanStep is how much of the file is looked at in one piece.
const scanStep = 8 << 20

func scan(path string) (*findings, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	found := &findings{messages: map[uint64]*message{}, poison: map[uint64]*message{}, answers: map[[32]byte]*answer{}}
	buf := make([]byte, 0, scanStep)
	for at := int64(0); at < info.Size(); {
		buf = buf[:min(int64(cap(buf)), info.Size()-at)]
		n, err := f.ReadAt(buf, at)
		if n == 0 && err != nil && !errors.Is(err, io.EOF) {
			at += 4096 // an unreadable sector
			continue
		}
		last := at+int64(n) >= info.Size()
		used, need := found.take(buf[:n], last)
		at += int64(used)
		if need > cap(buf) { // a record larger than a piece
			buf = make([]byte, 0, need)
		}
	}
	found.dropOld()
	return found, nil
}

// take reads the records in b and returns how many bytes need not be looked at
// again. need is more than len(b) when a record seems to go on behind it.
func (f *findings) take(b []byte, last bool) (used, need int) {
	at := 0
	for {
		i := bytes.Index(b[at:], []byte(recordMagic))
		if i < 0 {
			if last {
				return len(b), 0
			}
			return max(at, len(b)-len(recordMagic)+1), 0
		}
		at += i
		k, body, whole, err := open(b[at:])
		if err == nil {
			f.keep(k, body)
			at += whole
			continue
		}
		if n := claimed(b[at:]); !last && n > len(b)-at {
			if at > 0 {
				return at, n // from its start, with as much room as it takes
			}
			if n > len(b) {
				return 0, n
			}
		}
		at += len(recordMagic)
	}
}

// claimed is the length that a record at the start of b says it has.
func claimed(b []byte) int {
	if len(b) < recordHeader {
		return recordHeader
	}
	n := int(b[8])<<24 | int(b[9])<<16 | int(b[10])<<8 | int(b[11])
	if n < 1 || n > recordMost {
		return 0
	}
	return recordHeader + n
}

func (f *findings) keep(k kind, body []byte) {
	switch k {
	case kindMessage, kindPoison:
		m, err := decodeMessage(body)
		if err != nil {
			return
		}
		if k == kindPoison {
			f.poison[m.seq] = m
		} else {
			f.messages[m.seq] = m
		}
	case kindAnswer:
		if a, err := decodeAnswer(body); err == nil && (f.answers[a.id] == nil || f.answers[a.id].at.Before(a.at)) {
			f.answers[a.id] = a
		}
	}
}

func (f *findings) dropOld() {
	floor := uint64(0)
	for _, m := range f.messages {
		floor = max(floor, m.floor)
	}
	for seq := range f.messages {
		if _, poisoned := f.poison[seq]; seq < floor || poisoned {
			delete(f.messages, seq)
		}
	}
}

// write makes a file of the findings.
func (f *findings) write(path string) error {
	s, err := openChecked(path)
	if err != nil {
		return err
	}
	defer s.close()
	var seqs []uint64
	for seq := range f.messages {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	s.count = uint64(len(seqs))
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, seq := range seqs {
			if err := tx.Bucket(bucketMessages).Put(seqKey(seq), f.messages[seq].encode(kindMessage)); err != nil {
				return err
			}
		}
		for seq, m := range f.poison {
			if err := tx.Bucket(bucketPoison).Put(seqKey(seq), m.encode(kindPoison)); err != nil {
				return err
			}
		}
		for id, a := range f.answers {
			if err := tx.Bucket(bucketAnswers).Put(id[:], a.encode()); err != nil {
				return err
			}
		}
		return s.putCount(tx)
	})
}
