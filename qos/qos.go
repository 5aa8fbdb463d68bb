// SPDX-License-Identifier: Apache-2.0

// Package qos says how important a request is: its business class and its
// user's level, set once where the request enters and carried unchanged to
// every leaf it reaches.
package qos

import (
	"fmt"
	"slices"
	"strings"
)

// Class is the business class of a request: what the user was doing. It is
// taken from the contract of the method an entry stands for. The values are the
// wire values of the call header and of qos.v1.Business; smaller is better, zero
// means that nobody said. Values up to 15 are reserved.
type Class uint8

// The classes, best first.
const (
	Unspecified Class = 0 // nobody said: treated as Interactive
	Critical    Class = 1 // without it nothing else works: log-in, health
	Browse      Class = 2 // reading what one came for
	Post        Class = 3 // writing what others came for
	Interactive Class = 4 // comments, likes
	Extra       Class = 5 // nice to have: notices, album months, media
	Background  Class = 6 // nobody is waiting: fan-out, sync
)

// MaxClass is the largest value the header can carry.
const MaxClass Class = 15

var classNames = [...]string{"unspecified", "critical", "browse", "post", "interactive", "extra", "background"}

// String gives the lower-case name of the class, as metrics and pages show it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class-%d", uint8(c))
}

// ParseClass reads the name of a class, as String gives it: critical to background.
func ParseClass(name string) (Class, error) {
	i := slices.Index(classNames[1:], name)
	if i < 0 {
		return Unspecified, fmt.Errorf("%q is no class: want %s", name, strings.Join(classNames[1:], ", "))
	}
	return Class(i + 1), nil
}

// UnmarshalText is ParseClass, for files of settings.
func (c *Class) UnmarshalText(name []byte) (err error) {
	*c, err = ParseClass(string(name))
	return err
}

// UserLevels is the number of user levels; a level is 0 (best) to UserLevels-1.
// The figure is DAGOR's (Zhou et al., "Overload Control for Scaling WeChat
// Microservices", SoCC 2018, section 4.2.3).
const UserLevels = 128
