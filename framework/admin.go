// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"maps"
	"net/http"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/process"
)

// pages gives the pages of the admin port: the framework's own, and over them those
// of WithAdminHandler. They show the whole process, whatever else runs in it.
func (s *Server) pages() map[string]http.Handler {
	var door *admit.Door
	if s.admission != nil {
		door = s.admission.Door()
	}
	items := process.Items()
	pages := map[string]http.Handler{
		"/metrics":     items.Handler(),
		"/admin/items": items.CatalogueHandler(),
		"/admin/qos":   (&admin.QoS{Door: door, Items: items, Token: string(s.cfg.AdminToken), Log: s.opts.log}).Handler(),
	}
	maps.Copy(pages, s.opts.admin)
	return pages
}
