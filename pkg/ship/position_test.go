package ship

import "testing"

func FuzzPosition(f *testing.F) {
	f.Add(encodePosition(position{60, 51, 60}, "h"))
	f.Add([]byte("holdfast-ship 1 60 51 6"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		pos, ok := decodePosition(b, "h")
		if !ok && pos != (position{}) {
			t.Errorf("refused and believed: %+v", pos)
		}
		if back, again := decodePosition(encodePosition(pos, "h"), "h"); !again || back != pos {
			t.Errorf("%+v comes back as %+v", pos, back)
		}
		if _, ok := decodePosition(encodePosition(pos, "h"), "other"); ok {
			t.Error("another host's position was believed")
		}
	})
}

func TestPause(t *testing.T) {
	o := Options{HostID: "h", Jitter: func() float64 { return 0.999999 }}
	o.setDefaults()
	s := &Shipper{o: o}
	last := s.pause() - s.pause()
	for s.attempts = 1; s.attempts < 100; s.attempts++ {
		d := s.pause()
		if d < last || d > o.BackoffMax || d < o.BackoffMin/2 {
			t.Fatalf("pause %d is %v after %v", s.attempts, d, last)
		}
		last = d
	}
	if last < o.BackoffMax*9/10 {
		t.Errorf("the last pause is %v, want nearly %v", last, o.BackoffMax)
	}
}
