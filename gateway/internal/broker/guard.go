package broker

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// guard is a hook that works round two defects of mochi.
//
// Packet identifiers. Client and server number their packets independently (MQTT
// 3.1.1 section 2.3.1), but mochi keeps both kinds in one table: a SUBSCRIBE whose
// identifier a delivery to that client bears is refused, an UNSUBSCRIBE does
// nothing, and a PUBLISH takes the delivery's place in the send quota for ever. So
// such a packet gets another identifier on the way in, and its answer the client's
// own on the way out.
//
// Retained messages. mochi reads the tree of retained messages, when it answers a
// SUBSCRIBE, without the lock that it takes to change it. So the two exclude each
// other here. Neither side waits for a client's socket while it holds the lock:
// the change is made between two hooks with nothing between them, and the read
// begins after the SUBACK is written and only fills the client's queue.
//
// And mochi keeps a retained message before it passes it on, in a goroutine of
// each publisher, so a subscriber could learn of a value long before another one
// that is subscribed already: the snapshots of the gateway would come out of
// order. So a reader waits until what it will find has been passed on, which is a
// matter of microseconds unless a publisher does not read its acknowledgement.
type guard struct {
	mochi.HookBase

	retained sync.RWMutex                 // over mochi's tree of retained messages
	changing atomic.Pointer[mochi.Client] // who holds it for writing

	mu      sync.Mutex // guards what follows
	conns   map[net.Conn]*state
	passing map[*mochi.Client]struct{} // kept a message and are passing it on
	passed  chan struct{}              // closed while passing is empty
}

// patience bounds the wait for messages being passed on.
const patience = time.Second

// state is what guard knows of a connection. Only the goroutine that reads its
// packets uses it.
type state struct {
	client    *mochi.Client
	ids       map[uint16]uint16 // mochi's identifier → the client's own
	subscribe uint16            // the client's own, of the SUBSCRIBE being answered
	reading   bool              // holds retained for reading
}

// noID stands for a SUBSCRIBE's identifier while mochi handles it; no delivery
// bears it.
const noID = 0

func newGuard() *guard {
	g := &guard{conns: map[net.Conn]*state{}, passing: map[*mochi.Client]struct{}{}, passed: make(chan struct{})}
	close(g.passed)
	return g
}

// ID implements mochi.Hook.
func (*guard) ID() string { return "guard" }

// Provides implements mochi.Hook.
func (*guard) Provides(b byte) bool {
	switch b {
	case mochi.OnPacketRead, mochi.OnSubscribe, mochi.OnPacketEncode, mochi.OnPacketSent, mochi.OnPacketProcessed,
		mochi.OnPublish, mochi.OnWill, mochi.OnRetainMessage, mochi.OnWillSent:
		return true
	}
	return false
}

func (g *guard) state(cl *mochi.Client) *state {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.conns[cl.Net.Conn]
	if s == nil {
		s = &state{client: cl, ids: map[uint16]uint16{}}
		g.conns[cl.Net.Conn] = s
	}
	return s
}

// end gives back what c holds; the connection is over, perhaps by a panic.
func (g *guard) end(c net.Conn) {
	g.mu.Lock()
	s := g.conns[c]
	delete(g.conns, c)
	g.mu.Unlock()
	if s != nil {
		g.endReading(s)
	}
	if cl := g.changing.Load(); cl != nil && cl.Net.Conn == c {
		g.endChange(cl)
	}
	if s != nil {
		g.endPassing(s.client)
	}
}

func (g *guard) endReading(s *state) {
	if s.reading {
		s.reading = false
		g.retained.RUnlock()
	}
}

// OnPacketRead gives a client's packet another identifier where its own is taken.
func (g *guard) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if pk.FixedHeader.Qos > 0 {
			pk.PacketID = g.inwards(cl, pk.PacketID, pk.FixedHeader.Dup)
		}
	case packets.Unsubscribe:
		pk.PacketID = g.inwards(cl, pk.PacketID, false)
	case packets.Pubrel:
		if id, mapped := g.mapped(cl, pk.PacketID); mapped {
			pk.PacketID = id
		}
	}
	return pk, nil
}

// inwards returns the identifier under which mochi shall handle a packet of cl.
func (g *guard) inwards(cl *mochi.Client, own uint16, dup bool) uint16 {
	if id, mapped := g.mapped(cl, own); mapped && dup {
		return id // the same QoS 2 exchange again
	}
	taken := func(id uint16) bool {
		in, is := cl.State.Inflight.Get(id)
		return is && in.FixedHeader.Type != packets.Pubrec // a PUBREC is the client's own exchange
	}
	if own == 0 || !taken(own) {
		return own
	}
	ids := g.state(cl).ids
	// From half the circle away, where mochi's own numbers are not likely soon.
	for id := own + 1<<15; id != own; id++ {
		if _, mapped := ids[id]; id != 0 && !mapped {
			if _, inflight := cl.State.Inflight.Get(id); !inflight {
				ids[id] = own
				return id
			}
		}
	}
	return own
}

// mapped finds the identifier that stands for a client's own.
func (g *guard) mapped(cl *mochi.Client, own uint16) (id uint16, mapped bool) {
	for id, o := range g.state(cl).ids {
		if o == own {
			return id, true
		}
	}
	return 0, false
}

// OnSubscribe hides the identifier, right before mochi compares it.
func (g *guard) OnSubscribe(cl *mochi.Client, pk packets.Packet) packets.Packet {
	g.state(cl).subscribe = pk.PacketID
	pk.PacketID = noID
	return pk
}

// OnPacketEncode gives answers the client's own identifier.
func (g *guard) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Suback:
		pk.PacketID = g.state(cl).subscribe
	case packets.Puback, packets.Pubcomp, packets.Unsuback:
		ids := g.state(cl).ids
		if own, mapped := ids[pk.PacketID]; mapped {
			delete(ids, pk.PacketID)
			pk.PacketID = own
		}
	case packets.Pubrec:
		if own, mapped := g.state(cl).ids[pk.PacketID]; mapped {
			pk.PacketID = own
		}
	}
	return pk
}

// OnPacketSent begins the reading of retained messages: the SUBACK is written, and
// mochi comes to them next.
func (g *guard) OnPacketSent(cl *mochi.Client, pk packets.Packet, _ []byte) {
	if pk.FixedHeader.Type != packets.Suback {
		return
	}
	g.retained.RLock()
	g.state(cl).reading = true
	g.mu.Lock()
	passed := g.passed
	g.mu.Unlock()
	select {
	case <-passed: // no other message can be kept meanwhile: that needs the lock
	case <-time.After(patience):
	}
}

// OnPacketProcessed ends it, or the passing on of a message.
func (g *guard) OnPacketProcessed(cl *mochi.Client, pk packets.Packet, _ error) {
	switch pk.FixedHeader.Type {
	case packets.Subscribe:
		g.endReading(g.state(cl))
	case packets.Publish:
		g.endPassing(cl)
	}
}

// OnWillSent does the latter for a will.
func (g *guard) OnWillSent(cl *mochi.Client, _ packets.Packet) { g.endPassing(cl) }

func (g *guard) endPassing(cl *mochi.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, is := g.passing[cl]; is {
		delete(g.passing, cl)
		if len(g.passing) == 0 {
			close(g.passed)
		}
	}
}

// OnPublish begins a change of the retained messages, which mochi makes next.
func (g *guard) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if pk.FixedHeader.Retain {
		g.change(cl)
	}
	return pk, nil
}

// OnWill does so for a will. A delayed one (MQTT 5) is not retained.
func (g *guard) OnWill(cl *mochi.Client, will mochi.Will) (mochi.Will, error) {
	if will.Retain && will.WillDelayInterval > 0 {
		will.Retain = false // mochi would keep it later, without us and without the lock
	}
	if will.Retain {
		g.change(cl)
	}
	return will, nil
}

func (g *guard) change(cl *mochi.Client) {
	g.retained.Lock()
	g.changing.Store(cl)
}

// OnRetainMessage ends the change: the message is kept, and passed on next.
func (g *guard) OnRetainMessage(cl *mochi.Client, _ packets.Packet, _ int64) { g.endChange(cl) }

func (g *guard) endChange(cl *mochi.Client) {
	if !g.changing.CompareAndSwap(cl, nil) {
		return
	}
	g.mu.Lock()
	if len(g.passing) == 0 {
		g.passed = make(chan struct{})
	}
	g.passing[cl] = struct{}{}
	g.mu.Unlock()
	g.retained.Unlock()
}
