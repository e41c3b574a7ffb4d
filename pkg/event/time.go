package event

import (
	"encoding/json"
	"fmt"
	"time"
)

// Time is a moment in nanoseconds since 1970-01-01 UTC; 0 is unknown. In JSON it
// is RFC 3339 with nine digits, in CBOR the integer.
type Time int64

// TimeOf returns t as a Time.
func TimeOf(t time.Time) Time { return Time(t.UnixNano()) }

// Go returns t as a time.Time in UTC.
func (t Time) Go() time.Time { return time.Unix(0, int64(t)).UTC() }

// String is RFC 3339 in UTC with all nine digits of the nanoseconds.
func (t Time) String() string { return t.Go().Format("2006-01-02T15:04:05.000000000Z") }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("time: %w", err)
	}
	g, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return fmt.Errorf("time: %w", err)
	}
	*t = TimeOf(g)
	return nil
}
