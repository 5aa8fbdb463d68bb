// SPDX-License-Identifier: Apache-2.0

//go:build race

// Package race tells whether the program was built with the race detector.
package race

// Enabled is true in builds with -race.
const Enabled = true
