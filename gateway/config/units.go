package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// units of sizes, the longest spelling first. KB and the like are left out: half
// the world means 1,000 by them and half 1,024.
var units = []struct {
	name  string
	bytes int
}{{"KiB", kib}, {"MiB", mib}, {"GiB", 1024 * mib}, {"B", 1}, {"", 1}}

func parseBytes(s string) (int, error) {
	for _, u := range units {
		digits, fits := strings.CutSuffix(s, u.name)
		if !fits {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(digits))
		if err != nil || n < 0 || n > math.MaxInt/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, wrong("write bytes as 65536, 256KiB, 1MiB or 1GiB", "%q is not a size", s)
}

func formatBytes(n int) string {
	for _, u := range []int{2, 1, 0} {
		if n >= units[u].bytes && n%units[u].bytes == 0 {
			return strconv.Itoa(n/units[u].bytes) + units[u].name
		}
	}
	return strconv.Itoa(n)
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, wrong("write a time with its unit, such as 500ms, 10s or 5m", "%q is not a duration", s)
	}
	return d, nil
}

// formatDuration is Duration.String without the zeros: 5m, not 5m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
