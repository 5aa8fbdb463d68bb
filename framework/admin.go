// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/process"
)

// desk gives the pages of the admin port. They show the whole process, whatever else
// runs in it.
func (s *Server) desk(state *admin.State) *admin.Desk {
	d := &admin.Desk{
		Service: s.cfg.Service, State: state, Token: string(s.cfg.AdminToken), Log: s.opts.log,
		Items: process.Items(), Graph: process.Graph(), Tracer: process.Tracer(),
	}
	if s.admission != nil {
		d.Door = s.admission.Door()
	}
	return d
}
