// SPDX-License-Identifier: Apache-2.0

//go:build race

package account_test

// raceDetector is true when races are looked for, which makes a move take five times as long.
const raceDetector = true
