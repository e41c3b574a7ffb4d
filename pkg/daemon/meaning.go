package daemon

import (
	"github.com/holdfast/holdfast/pkg/accounts"
	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback"
)

// meaning tells what a step does, or did, to a file of accounts: to is what is there after it.
func (o ops) meaning(s *rollback.Step, to *event.State) []string {
	if !accounts.Known(s.Path) || s.Have.Exists == to.Exists && s.Have.Hash == to.Hash {
		return nil
	}
	content := func(h event.Hash) ([]byte, error) {
		if s.Content != nil && digest.Sum(s.Content) == h {
			return s.Content, nil
		}
		return o.keeper.Content(h, accounts.MaxSize)
	}
	return accounts.Meaning(s.Path, accounts.SideOf(&s.Have, content), accounts.SideOf(to, content))
}
