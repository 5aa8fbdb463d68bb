// SPDX-License-Identifier: Apache-2.0

// Package browser tries the pages of Moments in a real browser, as people use them.
//
// It holds tests only, and is a module of its own: the protocol of the browser is a
// large library to compile, which nothing else wants. What the pages looked like is
// kept in build/screenshots.
package browser
