package auth

import "math/big"

// rocaPrimes are the first primes that the flawed generator's structure shows at.
var rocaPrimes = []int64{
	3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
	101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
}

// isROCA reports whether an RSA modulus has the fingerprint of CVE-2017-15361 (M.
// Nemec et al., "The Return of Coppersmith's Attack", section 3.2): some smart
// cards made primes of the form k·M + 65537^a mod M, where M is the product of
// small primes. Then n too is a power of 65537 modulo each of them. Of other keys
// one in 2^27 looks the same.
func isROCA(n *big.Int) bool {
	for _, p := range rocaPrimes {
		left := new(big.Int).Mod(n, big.NewInt(p)).Int64()
		power, found := int64(1), false
		for range p {
			found = found || power == left
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}
