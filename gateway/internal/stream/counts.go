package stream

import "flyscreen/gateway/mqtt"

// counts says how many subscriptions need each narrowed filter. Most streams have
// one or two, for which a map would be most of the stream; many come into one.
type counts struct {
	few  []filterCount
	many map[mqtt.Filter]int // in place of few, when there are more than fewFilters
}

type filterCount struct {
	filter mqtt.Filter
	n      int
}

const fewFilters = 8

func (c *counts) len() int { return len(c.few) + len(c.many) }

func (c *counts) has(f mqtt.Filter) bool {
	return c.many[f] > 0 || c.at(f) >= 0
}

// at is f's index among the few, or -1.
func (c *counts) at(f mqtt.Filter) int {
	for i := range c.few {
		if c.few[i].filter == f {
			return i
		}
	}
	return -1
}

func (c *counts) add(f mqtt.Filter) {
	if c.many != nil {
		c.many[f]++
		return
	}
	if i := c.at(f); i >= 0 {
		c.few[i].n++
		return
	}
	if len(c.few) < fewFilters {
		c.few = append(c.few, filterCount{f, 1})
		return
	}
	c.many = make(map[mqtt.Filter]int, 2*fewFilters)
	for _, one := range c.few {
		c.many[one.filter] = one.n
	}
	c.few = nil
	c.many[f]++
}

// drop takes one away and reports whether it was the last.
func (c *counts) drop(f mqtt.Filter) (last bool) {
	if c.many != nil {
		if c.many[f]--; c.many[f] > 0 {
			return false
		}
		delete(c.many, f)
		return true
	}
	i := c.at(f)
	if c.few[i].n--; c.few[i].n > 0 {
		return false
	}
	c.few[i] = c.few[len(c.few)-1]
	c.few = c.few[:len(c.few)-1]
	return true
}

func (c *counts) filters() []mqtt.Filter {
	all := make([]mqtt.Filter, 0, c.len())
	for _, one := range c.few {
		all = append(all, one.filter)
	}
	for f := range c.many {
		all = append(all, f)
	}
	return all
}
