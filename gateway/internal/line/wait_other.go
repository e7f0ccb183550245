//go:build !unix

package line

// Readable returns at once: the next read waits.
func (l *Line) Readable() {}
