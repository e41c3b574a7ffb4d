package query

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// ParseTime reads a moment as people write it: RFC 3339; a date, or a date and a clock
// time, in now's zone; a clock time (15:04 or 15:04:05), which is the last moment at
// which the clock showed it; an age before now such as 90s, 2h, 3d, 1w or 1d12h; or "now".
func ParseTime(s string, now time.Time) (event.Time, error) {
	s = strings.TrimSpace(s)
	if s == "now" {
		return event.TimeOf(now), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return event.TimeOf(t), nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return event.TimeOf(t), nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if c, err := time.Parse(layout, s); err == nil {
			y, m, d := now.Date()
			t := time.Date(y, m, d, c.Hour(), c.Minute(), c.Second(), 0, now.Location())
			if t.After(now) {
				t = time.Date(y, m, d-1, c.Hour(), c.Minute(), c.Second(), 0, now.Location())
			}
			return event.TimeOf(t), nil
		}
	}
	if age, ok := parseAge(s); ok {
		return event.TimeOf(now.Add(-age)), nil
	}
	return 0, fmt.Errorf("time %q: want RFC 3339, a date, a clock time or an age", s)
}

// parseAge reads a sum of whole numbers with units from w down to s.
func parseAge(s string) (time.Duration, bool) {
	units := map[string]time.Duration{"w": 7 * 24 * time.Hour, "d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second}
	if !regexp.MustCompile(`^(\d{1,9}[wdhms])+$`).MatchString(s) {
		return 0, false
	}
	var sum time.Duration
	for _, p := range regexp.MustCompile(`\d+[wdhms]`).FindAllString(s, -1) {
		n, err := strconv.ParseInt(p[:len(p)-1], 10, 64)
		if err != nil {
			return 0, false
		}
		d := time.Duration(n) * units[p[len(p)-1:]]
		if n != 0 && d/time.Duration(n) != units[p[len(p)-1:]] || sum+d < sum {
			return 0, false
		}
		sum += d
	}
	return sum, true
}
