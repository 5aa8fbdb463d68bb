// SPDX-License-Identifier: Apache-2.0

//go:build !race

package causal_test

const raceDetector = false
