package upstream

import (
	"bytes"
	"io"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// tooLarge is the topic under which a PUBLISH larger than Options.MaxPacket comes
// to the handlers: conn throws it away and gives the library a small packet in its
// place, so that it is acknowledged and heard of in its turn. The small packet's
// payload is the true topic. "#" keeps it apart from every topic name (3.1.1
// section 4.7.1).
const tooLarge = "#too-large"

// To end the connection instead would not help: a retained message comes again
// with the next SUBSCRIBE, and the connection would come and go for ever.

// replace begins to throw away the checked PUBLISH h, and makes what the library
// gets for it.
func (c *conn) replace(h header) error {
	front := make([]byte, h.size+2)
	if _, err := io.ReadFull(c.r, front); err != nil {
		return err
	}
	rest := make([]byte, int(u16(front[h.size:]))+2*int(h.qos())) // topic and packet identifier
	if _, err := io.ReadFull(c.r, rest); err != nil {
		return err
	}
	topic := rest[:len(rest)-2*int(h.qos())]
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.Retain, p.MessageID = h.qos(), h.flags&1 != 0, u16(rest[len(topic):])
	p.TopicName, p.Payload = tooLarge, topic
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return err
	}
	c.substitute, c.skip = b.Bytes(), h.total-len(front)-len(rest)
	return nil
}

// skipOn throws away what has come of an oversized packet. Until all of it has,
// the library is told that its pings are answered: the true answer is behind the
// packet, and without it the library would give the connection up and not ping
// again, which the broker would take amiss.
func (c *conn) skipOn() error {
	if c.skip > 0 {
		if _, err := c.r.Peek(1); err != nil {
			return err
		}
		n, err := c.r.Discard(min(c.skip, c.r.Buffered()))
		c.skip -= n
		if c.skip > 0 || err != nil {
			c.instead = []byte{typePingresp << 4, 0}
			return err
		}
	}
	c.instead, c.substitute = c.substitute, nil
	return nil
}
