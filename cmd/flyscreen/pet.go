package main

import (
	"math"
	"math/rand/v2"
	"time"
)

// The park that the pets of the demo live in: Berlin's Tiergarten.
const (
	parkLat, parkLng = 52.5145, 13.3501
	parkRadius       = 350.0 // metres; a pet further out turns back
	metresPerDegree  = 111_320.0
)

// activity is what a pet is doing, with the words of its topic.
type activity string

const (
	walking  activity = "walking"
	resting  activity = "resting"
	playing  activity = "playing"
	sleeping activity = "sleeping"
)

// habits are how fast a pet goes in an activity, in m/s, how sharply it turns,
// in radians for a second, and how long that lasts, in seconds.
var habits = map[activity]struct{ speed, turn, least, most float64 }{
	walking:  {1.3, 0.35, 20, 60},
	playing:  {3.2, 1.1, 8, 25},
	resting:  {0, 0, 8, 20},
	sleeping: {0, 0, 15, 40},
}

// follows is what a pet may do next; what stands twice is twice as likely.
var follows = map[activity][]activity{
	walking:  {resting, playing, playing, walking},
	playing:  {walking, walking, resting},
	resting:  {walking, walking, sleeping},
	sleeping: {walking, resting},
}

// pet is one simulated animal with a tracker. It is used by one goroutine.
type pet struct {
	id      string
	east    float64 // metres from the park's middle
	north   float64
	heading float64 // radians, 0 is east
	speed   float64 // m/s
	battery float64 // percent
	steps   float64
	doing   activity
	left    float64 // seconds until it does something else
	dice    *rand.Rand
}

// newPet places a pet somewhere in the park; the same seed gives the same life.
func newPet(id string, seed uint64) *pet {
	dice := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) //nolint:gosec // a walk that can be repeated, not a secret
	angle, away := dice.Float64()*2*math.Pi, dice.Float64()*parkRadius*0.8
	p := &pet{
		id: id, dice: dice, east: away * math.Cos(angle), north: away * math.Sin(angle),
		heading: dice.Float64() * 2 * math.Pi, battery: 55 + 45*dice.Float64(),
	}
	p.begin(walking)
	return p
}

// begin makes the pet do something for a while.
func (p *pet) begin(what activity) {
	h := habits[what]
	p.doing, p.left = what, h.least+(h.most-h.least)*p.dice.Float64()
}

// step lets time pass and reports whether the pet now does something else.
func (p *pet) step(passed time.Duration) (changed bool) {
	s := passed.Seconds()
	h := habits[p.doing]
	p.speed += (h.speed*(0.7+0.6*p.dice.Float64()) - p.speed) * min(1, s/2) // speeds up and slows down over two seconds
	if p.speed < 0.05 {
		p.speed = 0
	}
	p.heading += h.turn * p.dice.NormFloat64() * math.Sqrt(s)
	if math.Hypot(p.east, p.north) > parkRadius {
		home := math.Atan2(-p.north, -p.east)
		p.heading += math.Remainder(home-p.heading, 2*math.Pi) * min(1, s/3)
	}
	p.east += p.speed * s * math.Cos(p.heading)
	p.north += p.speed * s * math.Sin(p.heading)
	p.steps += p.speed * s * 2.2
	p.battery = max(1, p.battery-s*0.004)
	if p.left -= s; p.left > 0 {
		return false
	}
	next := follows[p.doing]
	p.begin(next[p.dice.IntN(len(next))])
	return true
}

// location is what the tracker sends of where the pet is: degrees to a decimetre,
// km/h, percent.
type location struct {
	Lat     float64 `json:"lat"`
	Lng     float64 `json:"lng"`
	Speed   float64 `json:"speed"`
	Battery int     `json:"battery"`
}

func (p *pet) location() location {
	return location{
		Lat:     rounded(parkLat+p.north/metresPerDegree, 6),
		Lng:     rounded(parkLng+p.east/(metresPerDegree*math.Cos(parkLat*math.Pi/180)), 6),
		Speed:   rounded(p.speed*3.6, 1),
		Battery: int(math.Round(p.battery)),
	}
}

// action is what the tracker sends of what the pet does.
type action struct {
	State activity `json:"state"`
	Steps int      `json:"steps"`
}

func (p *pet) action() action { return action{State: p.doing, Steps: int(p.steps)} }

func rounded(x float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(x*scale) / scale
}
