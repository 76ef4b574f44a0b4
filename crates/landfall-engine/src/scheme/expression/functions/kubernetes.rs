//! Functions of the libraries that Kubernetes adds: formats of names, quantities, versions, addresses.

use super::How::{In, Of, Plain};
use super::Sort::{Address, Bool, Double, Format, Int, Map, Network, Optional, Quantity, Text, Url, Version};
use super::{Function, here};
use crate::scheme::expression::{addresses, amounts, texts};

pub(super) static FUNCTIONS: &[Function] = &[
    // Formats of names.
    Function {
        name: "named",
        how: In("format"),
        overloads: &[(&[Text], Optional, here!(texts::named))],
        examples: &["format.named('dns1123Label').hasValue()"],
    },
    Function {
        name: "dns1123Label",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::dns1123_label))],
        examples: &["!format.dns1123Label().validate('a').hasValue()"],
    },
    Function {
        name: "dns1123Subdomain",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::dns1123_subdomain))],
        examples: &["!format.dns1123Subdomain().validate('a.b').hasValue()"],
    },
    Function {
        name: "dns1035Label",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::dns1035_label))],
        examples: &["format.dns1035Label().validate('1').hasValue()"],
    },
    Function {
        name: "dns1123LabelPrefix",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::dns1123_label_prefix))],
        examples: &["!format.dns1123LabelPrefix().validate('a-').hasValue()"],
    },
    Function {
        name: "dns1123SubdomainPrefix",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::dns1123_subdomain_prefix))],
        examples: &["!format.dns1123SubdomainPrefix().validate('a.b-').hasValue()"],
    },
    Function {
        name: "dns1035LabelPrefix",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::dns1035_label_prefix))],
        examples: &["!format.dns1035LabelPrefix().validate('a-').hasValue()"],
    },
    Function {
        name: "qualifiedName",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::qualified_name))],
        examples: &["!format.qualifiedName().validate('a.b/c').hasValue()"],
    },
    Function {
        name: "labelValue",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::label_value))],
        examples: &["!format.labelValue().validate('').hasValue()"],
    },
    Function {
        name: "uri",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::uri))],
        examples: &["!format.uri().validate('https://example.com').hasValue()"],
    },
    Function {
        name: "uuid",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::uuid))],
        examples: &["format.uuid().validate('a').hasValue()"],
    },
    Function {
        name: "byte",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::byte))],
        examples: &["!format.byte().validate('aGk=').hasValue()"],
    },
    Function {
        name: "date",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::date))],
        examples: &["!format.date().validate('2026-01-01').hasValue()"],
    },
    Function {
        name: "datetime",
        how: In("format"),
        overloads: &[(&[], Format, here!(texts::datetime))],
        examples: &["!format.datetime().validate('2026-01-01T00:00:00Z').hasValue()"],
    },
    Function {
        name: "validate",
        how: Of,
        overloads: &[(&[Format, Text], Optional, here!(texts::validate))],
        examples: &["format.dns1123Label().validate('A').value().size() == 1"],
    },
    // Quantities.
    Function {
        name: "quantity",
        how: Plain,
        overloads: &[(&[Text], Quantity, here!(amounts::quantity))],
        examples: &["quantity('1Gi') == quantity('1024Mi')"],
    },
    Function {
        name: "isQuantity",
        how: Plain,
        overloads: &[(&[Text], Bool, here!(amounts::is_quantity))],
        examples: &["isQuantity('1Gi') && !isQuantity('one')"],
    },
    Function {
        name: "isInteger",
        how: Of,
        overloads: &[(&[Quantity], Bool, here!(amounts::is_integer))],
        examples: &["quantity('1k').isInteger() && !quantity('1m').isInteger()"],
    },
    Function {
        name: "asInteger",
        how: Of,
        overloads: &[(&[Quantity], Int, here!(amounts::as_integer))],
        examples: &["quantity('1k').asInteger() == 1000"],
    },
    Function {
        name: "asApproximateFloat",
        how: Of,
        overloads: &[(&[Quantity], Double, here!(amounts::as_float))],
        examples: &["quantity('500m').asApproximateFloat() == 0.5"],
    },
    Function {
        name: "sign",
        how: Of,
        overloads: &[(&[Quantity], Int, here!(amounts::sign))],
        examples: &["quantity('-1').sign() == -1"],
    },
    Function {
        name: "add",
        how: Of,
        overloads: &[
            (&[Quantity, Quantity], Quantity, here!(amounts::add)),
            (&[Quantity, Int], Quantity, here!(amounts::add)),
        ],
        examples: &["quantity('1').add(quantity('1')) == quantity('2')", "quantity('1').add(1) == quantity('2')"],
    },
    Function {
        name: "sub",
        how: Of,
        overloads: &[
            (&[Quantity, Quantity], Quantity, here!(amounts::sub)),
            (&[Quantity, Int], Quantity, here!(amounts::sub)),
        ],
        examples: &["quantity('1').sub(quantity('1')) == quantity('0')", "quantity('2').sub(1) == quantity('1')"],
    },
    Function {
        name: "compareTo",
        how: Of,
        overloads: &[
            (&[Quantity, Quantity], Int, here!(amounts::compare)),
            (&[Version, Version], Int, here!(amounts::compare)),
        ],
        examples: &["quantity('1').compareTo(quantity('2')) == -1", "semver('2.0.0').compareTo(semver('1.9.9')) == 1"],
    },
    Function {
        name: "isGreaterThan",
        how: Of,
        overloads: &[
            (&[Quantity, Quantity], Bool, here!(amounts::is_greater)),
            (&[Version, Version], Bool, here!(amounts::is_greater)),
        ],
        examples: &[
            "quantity('1Gi').isGreaterThan(quantity('1G'))",
            "semver('1.0.0').isGreaterThan(semver('1.0.0-rc.1'))",
        ],
    },
    Function {
        name: "isLessThan",
        how: Of,
        overloads: &[
            (&[Quantity, Quantity], Bool, here!(amounts::is_less)),
            (&[Version, Version], Bool, here!(amounts::is_less)),
        ],
        examples: &["quantity('1m').isLessThan(quantity('1'))", "semver('1.9.0').isLessThan(semver('1.10.0'))"],
    },
    // Versions.
    Function {
        name: "semver",
        how: Plain,
        overloads: &[(&[Text], Version, here!(amounts::version)), (&[Text, Bool], Version, here!(amounts::version))],
        examples: &["semver('1.2.3') == semver('1.2.3')", "semver('v1.2', true) == semver('1.2.0')"],
    },
    Function {
        name: "isSemver",
        how: Plain,
        overloads: &[(&[Text], Bool, here!(amounts::is_version)), (&[Text, Bool], Bool, here!(amounts::is_version))],
        examples: &["isSemver('1.2.3') && !isSemver('v1.2.3')", "isSemver('v1', true)"],
    },
    Function {
        name: "major",
        how: Of,
        overloads: &[(&[Version], Int, here!(amounts::major))],
        examples: &["semver('1.2.3').major() == 1"],
    },
    Function {
        name: "minor",
        how: Of,
        overloads: &[(&[Version], Int, here!(amounts::minor))],
        examples: &["semver('1.2.3').minor() == 2"],
    },
    Function {
        name: "patch",
        how: Of,
        overloads: &[(&[Version], Int, here!(amounts::patch))],
        examples: &["semver('1.2.3').patch() == 3"],
    },
    // Addresses.
    Function {
        name: "ip",
        how: Plain,
        overloads: &[(&[Text], Address, here!(addresses::ip))],
        examples: &["ip('::1') == ip('0:0::1')"],
    },
    Function {
        name: "isIP",
        how: Plain,
        overloads: &[(&[Text], Bool, here!(addresses::is_ip))],
        examples: &["isIP('10.0.0.1') && !isIP('10.0.0.256')"],
    },
    Function {
        name: "isCanonical",
        how: In("ip"),
        overloads: &[(&[Text], Bool, here!(addresses::is_canonical))],
        examples: &["ip.isCanonical('::1') && !ip.isCanonical('0:0::1')"],
    },
    Function {
        name: "family",
        how: Of,
        overloads: &[(&[Address], Int, here!(addresses::family))],
        examples: &["ip('10.0.0.1').family() == 4"],
    },
    Function {
        name: "isUnspecified",
        how: Of,
        overloads: &[(&[Address], Bool, here!(addresses::is_unspecified))],
        examples: &["ip('0.0.0.0').isUnspecified()"],
    },
    Function {
        name: "isLoopback",
        how: Of,
        overloads: &[(&[Address], Bool, here!(addresses::is_loopback))],
        examples: &["ip('127.0.0.1').isLoopback()"],
    },
    Function {
        name: "isLinkLocalMulticast",
        how: Of,
        overloads: &[(&[Address], Bool, here!(addresses::is_link_local_multicast))],
        examples: &["ip('224.0.0.1').isLinkLocalMulticast()"],
    },
    Function {
        name: "isLinkLocalUnicast",
        how: Of,
        overloads: &[(&[Address], Bool, here!(addresses::is_link_local_unicast))],
        examples: &["ip('fe80::1').isLinkLocalUnicast()"],
    },
    Function {
        name: "isGlobalUnicast",
        how: Of,
        overloads: &[(&[Address], Bool, here!(addresses::is_global_unicast))],
        examples: &["ip('10.0.0.1').isGlobalUnicast() && !ip('127.0.0.1').isGlobalUnicast()"],
    },
    Function {
        name: "cidr",
        how: Plain,
        overloads: &[(&[Text], Network, here!(addresses::cidr))],
        examples: &["cidr('10.0.0.0/8') == cidr('10.0.0.0/8')"],
    },
    Function {
        name: "isCIDR",
        how: Plain,
        overloads: &[(&[Text], Bool, here!(addresses::is_cidr))],
        examples: &["isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0/33')"],
    },
    Function {
        name: "containsIP",
        how: Of,
        overloads: &[
            (&[Network, Text], Bool, here!(addresses::contains_ip)),
            (&[Network, Address], Bool, here!(addresses::contains_ip)),
        ],
        examples: &["cidr('10.0.0.0/8').containsIP('10.1.2.3')", "!cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))"],
    },
    Function {
        name: "containsCIDR",
        how: Of,
        overloads: &[
            (&[Network, Text], Bool, here!(addresses::contains_cidr)),
            (&[Network, Network], Bool, here!(addresses::contains_cidr)),
        ],
        examples: &[
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
            "!cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
        ],
    },
    Function {
        name: "ip",
        how: Of,
        overloads: &[(&[Network], Address, here!(addresses::network_ip))],
        examples: &["cidr('10.0.0.1/8').ip() == ip('10.0.0.1')"],
    },
    Function {
        name: "masked",
        how: Of,
        overloads: &[(&[Network], Network, here!(addresses::masked))],
        examples: &["cidr('10.0.0.1/8').masked() == cidr('10.0.0.0/8')"],
    },
    Function {
        name: "prefixLength",
        how: Of,
        overloads: &[(&[Network], Int, here!(addresses::prefix_length))],
        examples: &["cidr('10.0.0.0/8').prefixLength() == 8"],
    },
    Function {
        name: "url",
        how: Plain,
        overloads: &[(&[Text], Url, here!(addresses::url))],
        examples: &["url('https://example.com') == url('https://example.com')"],
    },
    Function {
        name: "isURL",
        how: Plain,
        overloads: &[(&[Text], Bool, here!(addresses::is_url))],
        examples: &["isURL('https://example.com/a?b=c') && isURL('/a') && !isURL('a')"],
    },
    Function {
        name: "getScheme",
        how: Of,
        overloads: &[(&[Url], Text, here!(addresses::scheme))],
        examples: &["url('https://example.com').getScheme() == 'https'"],
    },
    Function {
        name: "getHost",
        how: Of,
        overloads: &[(&[Url], Text, here!(addresses::host))],
        examples: &["url('https://[::1]:80/').getHost() == '[::1]:80'"],
    },
    Function {
        name: "getHostname",
        how: Of,
        overloads: &[(&[Url], Text, here!(addresses::hostname))],
        examples: &["url('https://[::1]:80/').getHostname() == '::1'"],
    },
    Function {
        name: "getPort",
        how: Of,
        overloads: &[(&[Url], Text, here!(addresses::port))],
        examples: &["url('https://example.com:80/').getPort() == '80'"],
    },
    Function {
        name: "getEscapedPath",
        how: Of,
        overloads: &[(&[Url], Text, here!(addresses::escaped_path))],
        examples: &["url('https://example.com/a%20b').getEscapedPath() == '/a%20b'"],
    },
    Function {
        name: "getQuery",
        how: Of,
        overloads: &[(&[Url], Map, here!(addresses::query))],
        examples: &["url('/?a=1&a=b+c&d').getQuery() == {'a': ['1', 'b c'], 'd': ['']}"],
    },
];
