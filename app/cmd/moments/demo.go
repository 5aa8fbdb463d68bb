// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// demo is the login that a first start makes; without a name there is none.
type demo struct{ name, password, file string }

const (
	demoFile = "demo.txt"
	demoName = "demo"
	demoTime = 10 * time.Second
)

// ensureDemo makes a login in a store without users, and finds the one made before.
// Its password is kept before the account is made, so that a crash between the two
// does not lose it.
func ensureDemo(ctx context.Context, accounts momentsv1.AccountServiceClient, data *cluster.Data) (demo, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	ctx = rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
		Entry: framework.NameEntry("job moments.demo"), Class: qos.Background, Trace: tracing.NewTraceID(),
	}})
	d := demo{name: demoName, file: filepath.Join(data.Dir(), demoFile)}
	kept, err := os.ReadFile(d.file)
	switch {
	case err == nil:
		d.password = strings.TrimSpace(string(kept))
	case !errors.Is(err, fs.ErrNotExist):
		return demo{}, fmt.Errorf("read the demo login: %w", err)
	}
	switch some, err := anybody(ctx, accounts); {
	case err != nil:
		return demo{}, fmt.Errorf("look for users: %w", err)
	case some && d.password == "":
		return demo{}, nil // users of one's own, and no demo
	case some:
		return d, nil
	}
	if d.password == "" {
		d.password = rand.Text()
		if err := os.WriteFile(d.file, []byte(d.password+"\n"), 0o600); err != nil {
			return demo{}, fmt.Errorf("keep the demo login: %w", err)
		}
	}
	if _, err := accounts.Register(ctx, &momentsv1.RegisterRequest{Name: d.name, Password: d.password, DisplayName: "Demo"}); err != nil {
		return demo{}, fmt.Errorf("make the demo login: %w", err)
	}
	return d, nil
}

// anybody reports whether there are users.
func anybody(ctx context.Context, accounts momentsv1.AccountServiceClient) (bool, error) {
	for cursor := ""; ; {
		res, err := accounts.ListUsers(ctx, &momentsv1.ListUsersRequest{Cursor: cursor, Limit: 1})
		if err != nil || len(res.GetProfiles()) > 0 {
			return err == nil, err
		}
		if cursor = res.GetNextCursor(); cursor == "" {
			return false, nil
		}
	}
}

// dialAccounts connects to the account service of a running Moments.
func dialAccounts(state *cluster.State) (*framework.Conn, momentsv1.AccountServiceClient, error) {
	conn, err := framework.Dial(framework.ClientConfig{
		Service: string(topology.Account), Addrs: []string{state.Services[topology.Account].Addr}, Connections: 1,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("dial the account service: %w", err)
	}
	return conn, momentsv1.NewAccountServiceClient(conn), nil
}
