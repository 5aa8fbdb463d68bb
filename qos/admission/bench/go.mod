module github.com/sluice-rpc/sluice/qos/admission/bench

go 1.26.0

require github.com/sluice-rpc/sluice v0.0.0

replace github.com/sluice-rpc/sluice => ../../..
