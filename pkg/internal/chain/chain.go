// Package chain is a doubly linked list whose elements carry their own links, so
// that one may be in several lists and leave each without being looked for. It is
// not safe for several goroutines.
package chain

import "iter"

// Link is the place of one element in one list. The zero Link is in none.
type Link[T any] struct {
	of         *T
	prev, next *Link[T]
	list       *List[T]
}

// List holds elements in the order in which they came. The zero List is empty.
type List[T any] struct {
	first, last *Link[T]
	n           int
}

// Len returns how many elements the list has.
func (l *List[T]) Len() int { return l.n }

// First returns the element that came first, nil if there is none.
func (l *List[T]) First() *T { return l.first.elem() }

// Next returns the element behind that of k, nil if there is none.
func (k *Link[T]) Next() *T { return k.next.elem() }

func (k *Link[T]) elem() *T {
	if k == nil {
		return nil
	}
	return k.of
}

// Push adds x, whose link k is in no list, at the end.
func (l *List[T]) Push(k *Link[T], x *T) {
	k.of, k.list, k.prev, k.next = x, l, l.last, nil
	l.n++
	l.tie(k)
}

// tie lets the neighbours of k, or the ends of the list, point at it.
func (l *List[T]) tie(k *Link[T]) {
	if k.prev != nil {
		k.prev.next = k
	} else {
		l.first = k
	}
	if k.next != nil {
		k.next.prev = k
	} else {
		l.last = k
	}
}

// Replace puts x with its link k, which is in no list, into the place of o.
func (l *List[T]) Replace(o, k *Link[T], x *T) {
	k.of, k.list, k.prev, k.next = x, l, o.prev, o.next
	l.tie(k)
	*o = Link[T]{}
}

// Leave takes the element of k out of the list that it is in, if it is in one.
func (k *Link[T]) Leave() {
	l := k.list
	if l == nil {
		return
	}
	if k.prev != nil {
		k.prev.next = k.next
	} else {
		l.first = k.next
	}
	if k.next != nil {
		k.next.prev = k.prev
	} else {
		l.last = k.prev
	}
	l.n--
	*k = Link[T]{}
}

// All goes over the elements in their order. The one that is given may leave the
// list meanwhile, no other may.
func (l *List[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for k := l.first; k != nil; {
			next := k.next
			if !yield(k.of) {
				return
			}
			k = next
		}
	}
}
