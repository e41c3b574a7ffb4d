package chain

import (
	"container/list"
	"math/rand/v2"
	"slices"
	"testing"
)

type elem struct {
	Link[elem]
	n int
}

// Random work on a chain does what it does on container/list.
func TestAChainIsAList(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var l List[elem]
	want, at := list.New(), map[*elem]*list.Element{}
	var in []*elem
	take := func() (*elem, int) {
		i := rnd.IntN(len(in))
		return in[i], i
	}
	for n := range 5000 {
		switch x := (&elem{n: n}); {
		case len(in) == 0 || rnd.IntN(3) == 0:
			l.Push(&x.Link, x)
			at[x] = want.PushBack(n)
			in = append(in, x)
		case rnd.IntN(3) == 0:
			o, i := take()
			l.Replace(&o.Link, &x.Link, x)
			at[x] = want.InsertBefore(n, at[o])
			want.Remove(at[o])
			in[i] = x
			o.Leave() // it is in none any more
		default:
			o, i := take()
			o.Leave()
			want.Remove(at[o])
			in = slices.Delete(in, i, i+1)
		}
		var got, exp []int
		for x := range l.All() {
			got = append(got, x.n)
		}
		for e := want.Front(); e != nil; e = e.Next() {
			exp = append(exp, e.Value.(int))
		}
		if !slices.Equal(got, exp) || l.Len() != want.Len() {
			t.Fatalf("after %d steps: %v (%d), want %v", n+1, got, l.Len(), exp)
		}
		if f := l.First(); f != nil && (f.n != exp[0] || len(exp) > 1 && f.Next().n != exp[1]) {
			t.Fatalf("first is %d, want %v", f.n, exp)
		}
	}
}

func TestTheElementThatIsGivenMayLeave(t *testing.T) {
	var l List[elem]
	for n := range 6 {
		x := &elem{n: n}
		l.Push(&x.Link, x)
	}
	for x := range l.All() {
		if x.n%2 == 0 {
			x.Leave()
		}
	}
	var got []int
	for x := range l.All() {
		got = append(got, x.n)
	}
	if !slices.Equal(got, []int{1, 3, 5}) {
		t.Errorf("left are %v", got)
	}
}
