module github.com/sluice-rpc/sluice/app/bench

go 1.26.0

require (
	github.com/redis/go-redis/v9 v9.17.2
	github.com/sluice-rpc/sluice v0.0.0
	golang.org/x/sys v0.48.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
	golang.org/x/sync v0.23.0 // indirect
)

replace github.com/sluice-rpc/sluice => ../..
