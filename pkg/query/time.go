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
// which the clock showed it; "today" or "yesterday", which begin at midnight; an age before now such as 90s, 2h, 3d, 1w
// or 1d12h, with days of 24 hours; or "now". It is never 0, which would be no moment. What a record cannot have, before
// the year 1678 or after 2261, is an error.
func ParseTime(s string, now time.Time) (event.Time, error) {
	t, err := parseTime(strings.TrimSpace(s), now)
	if err != nil {
		return 0, err
	}
	if y := t.UTC().Year(); y < 1678 || y > 2261 {
		return 0, fmt.Errorf("time %q: the year %d is not from 1678 to 2261", s, y)
	}
	if e := event.TimeOf(t); e != 0 {
		return e, nil
	}
	return 1, nil
}

func parseTime(s string, now time.Time) (time.Time, error) {
	y, m, d := now.Date()
	switch s {
	case "now":
		return now, nil
	case "today":
		return time.Date(y, m, d, 0, 0, 0, 0, now.Location()), nil
	case "yesterday":
		return time.Date(y, m, d-1, 0, 0, 0, 0, now.Location()), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if c, err := time.Parse(layout, s); err == nil {
			return shown(c, now), nil
		}
	}
	if age, ok := parseAge(s); ok {
		return now.Add(-age), nil
	}
	return time.Time{}, fmt.Errorf("time %q: want RFC 3339, a date, a clock time, an age, today or yesterday", s)
}

// shown is the last moment, now or before, at which the clock showed c: an hour that a change of the clock left out was shown
// the day before, one that it brought again was shown twice.
func shown(c, now time.Time) time.Time {
	y, m, d := now.Date()
	for back := 0; ; back++ {
		t := time.Date(y, m, d-back, c.Hour(), c.Minute(), c.Second(), 0, now.Location())
		for _, t := range []time.Time{t.Add(time.Hour), t, t.Add(-time.Hour)} {
			if t.Hour() == c.Hour() && t.Minute() == c.Minute() && !t.After(now) {
				return t
			}
		}
		if back == 3 { // no clock leaves out an hour on each of three days
			return t
		}
	}
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
