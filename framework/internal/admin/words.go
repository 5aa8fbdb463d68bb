// SPDX-License-Identifier: Apache-2.0

package admin

// words gives the Chinese of what the pages say.
var words = map[string]string{}
