package line

// The bounds, for tests.
const (
	MaxBehind = maxBehind
	Piece     = piece
)
