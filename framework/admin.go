// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"maps"
	"net/http"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/process"
)

// pages gives the pages of the admin port: the framework's own, and over them those
// of WithAdminHandler. They show the whole process, whatever else runs in it.
func (s *Server) pages() map[string]http.Handler {
	qos := &admin.QoS{Items: process.Items(), Token: string(s.cfg.AdminToken), Log: s.opts.log}
	if s.admission != nil {
		qos.Door = s.admission.Door()
	}
	pages := admin.Pages(qos, process.Graph())
	maps.Copy(pages, s.opts.admin)
	return pages
}
