// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/sluice-rpc/sluice/framework/bench/figure"

// theilSen gives the median of the slopes between all pairs of points, whose x all differ:
// up to a quarter of the points may be anywhere without it going far (Theil 1950, Sen 1968).
func theilSen(x, y []float64) float64 {
	var slopes []float64
	for i := range x {
		for j := range i {
			slopes = append(slopes, (y[i]-y[j])/(x[i]-x[j]))
		}
	}
	_, median, _ := figure.Quartiles(slopes)
	return median
}
