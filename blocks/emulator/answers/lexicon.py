"""The few hundred German and English words that the emulator's answers are made of.

Words that are frequent in both languages with different meanings (`fast`, `war`, `kind`) are left out.
"""

from collections.abc import Iterator

Label = tuple[str, str]  # in English, in German

GERMAN_ENDINGS = ("", "e", "er", "es", "en", "em")


def inflected(stems: str) -> Iterator[str]:
    """German adjectives with their endings."""
    for stem in stems.split():
        for ending in GERMAN_ENDINGS:
            yield stem.removesuffix("e") + ending if ending else stem


def labels_by_word(table: str) -> dict[str, Label]:
    """From each word to its label; the first label of a word counts. An indented line continues the one before."""
    labels: dict[str, Label] = {}
    for line in table.replace("\n    ", " ").strip().splitlines():
        names, words = line.split(": ")
        english, german = names.split("|")
        for word in words.split():
            labels.setdefault(word, (english, german))
    return labels


_PRAISING_ADJECTIVES = """
gut besser super prima toll großartig perfekt hervorragend ausgezeichnet zufrieden schön schick einwandfrei tadellos
angenehm bequem zuverlässig hochwertig wertig lecker köstlich aromatisch robust stabil sauber leise praktisch handlich
freundlich schnell pünktlich gelungen liebevoll spannend lustig frisch knackig zart fein solide kuschelig weich
günstig preiswert klar glücklich begeistert stolz leicht übersichtlich präzise scharf dicht kräftig satt klug hübsch
verständlich ausgewogen cremig mild hilfreich empfehlenswert erfreulich
"""
_PRAISING_WORDS = """
beste besten bester bestes bestens empfehle empfehlen empfehlung weiterempfehlen weiterempfehlung klasse spitze
wunderbar wunderbare wunderbaren genial gerne liebe liebt lieben gefällt gefallen freude freut froh danke dank lohnt
gelohnt überzeugt überzeugend genau sofort problemlos wunderschön top nachgekauft begeisterung gerettet volltreffer
traumhaft mag gelacht knaller übertroffen verzichten fröhlich fröhlicher good great excellent perfect amazing awesome
love loves loved wonderful fantastic best better delicious tasty yummy happy pleased glad nice fine favorite favourite
recommend recommended comfortable beautiful beautifully gorgeous easy easily quick quickly fresh friendly helpful
reliable solid sturdy works enjoy enjoyed enjoys impressed satisfied superb brilliant lovely smooth worth thanks thank
properly clear crisp soft well flawless ideal handy quiet cosy warm clever fun funny gripping readable foolproof
spotless outstanding
"""
_BLAMING_ADJECTIVES = """
schlecht schlimm mies miserabel defekt kaputt enttäuschend enttäuscht billig unbrauchbar mangelhaft langweilig fad
muffig ranzig bitter sauer klebrig laut kratzig unbequem schwach dünn dumpf flach blechern stumpf undicht langsam
unfreundlich ärgerlich nutzlos unpraktisch umständlich anstrengend schief lose verspätet wackelig spröde überteuert
traurig schwammig verzerrt unscharf stinkend hässlich falsch zäh trocken ungenießbar
"""
_BLAMING_WORDS = """
leider schade enttäuschung reklamation reklamiert zurückgeschickt zurück rücksendung umtausch mangel mängel fehler
problem probleme gebrochen abgebrochen zerbrochen gerissen riss kratzer ausgelaufen läuft leckt fehlt fehlte fehlten
nie wackelt knarzt rauscht knackt klemmt stürzt bricht abbrüche stinkt riecht ausschlag schrott finger müll
geldverschwendung hereingefallen warnen ärger verspätung nervt drückt verschwunden verblasst ausgeblichen reißt löst
gelöst beschädigt beschädigte zerkratzt abzocke kontozwang happig mogelpackung bad worse worst terrible awful horrible
poor poorly broken broke breaks disappointed disappointing disappointment waste wasted useless defective damaged cheap
flimsy stale bland bitter rancid nasty gross disgusting refund returned return returning unfortunately sadly problems
issue issues fail failed fails leaking leaks leaked leaky wrong missing late slow noisy uncomfortable weak faulty
cracked crushed melted ugly boring annoying never hate hated bother overpriced rude stopped died dead scratch
scratched stained tore torn smells stinks mediocre regret avoid unusable dull blunt lumpy soggy dented tinny muffled
rattles
"""
_NEGATIONS = """
nicht kein keine keinen keinem keiner keines nichts nie niemals kaum ohne no not never without hardly nothing isn aren
wasn weren don doesn didn won wouldn can cannot couldn t
"""
_GERMAN_WORDS = """
der die das und ist nicht ich es ein eine einen mit für auf sehr aber nach auch zu den dem war hat habe wir sie er im
von bei wie nur noch schon aus als so man mir mich wird sich kein keine bin sind wurde oder wenn dass über beim zum
zur am ihr ihn mein meine meiner unser sein immer hier gut dann doch mal leider
"""
_ENGLISH_WORDS = """
the and is not i it a an with for on very but after also to of this that was has have we they he in from at by like
only still out as so you me my be are were or if about when had its these them would just all than our your there
which what too no can
"""

# English label|German label: words of both languages that stand for it
_TOPICS = """
battery|Akku: battery batteries charge charging charges charger akku akkus akkulaufzeit akkuanzeige batterie batterien
    laden geladen ladezeit ladekabel aufladen
delivery|Lieferung: delivery delivered deliver shipping shipped shipment arrived arrive courier lieferung lieferzeit
    geliefert versand versandt zustellung paketbote lieferte angekommen bote
price|Preis: price prices priced pricey money cheap cheaper expensive value bargain cost costs preis preise
    preisleistung geld teuer teure teurer günstig günstige günstiger preiswert bezahlt euro angebot
quality|Qualität: quality durable durability build made qualität verarbeitung verarbeitet hochwertig hochwertige
    wertig haltbarkeit langlebig
taste|Geschmack: taste tastes tasted tasting tasty flavor flavors flavour flavours flavored delicious bland geschmack
    schmeckt schmecken geschmeckt lecker aroma würzig fad
size|Größe: size sized sizes sizing small smaller big bigger large larger tiny größe größen klein kleiner kleine groß
    große größer passform xl
customer service|Kundenservice: support service staff refund replacement seller vendor kundenservice kundendienst
    service hotline händler support verkäufer rückfrage antwort erstattung
packaging|Verpackung: packaging packaged packed package box boxes bag bags pouch tin carton wrapped verpackung
    verpackt karton tüte beutel umverpackung ausgepackt
sound|Klang: sound sounds audio bass treble music speaker klang klingt bass bässe höhen musik stimmen lautsprecher
noise|Lautstärke: noise noisy quiet loud lautstärke laut lauter leise geräusch geräusche brummt
comfort|Tragekomfort: comfort comfortable comfy fit fits snug wear wearing tragekomfort bequem sitzt trägt drückt
    polster unbequem
connection|Verbindung: bluetooth connection pairing paired pair wifi connect verbindung verbunden gekoppelt koppeln
    wlan
app|App: app apps software update firmware
display|Anzeige: display screen anzeige bildschirm
picture|Bild: picture pictures image webcam camera photo photos bild bilder kamera foto fotos abbildungen
material|Material: material materials fabric plastic leather cotton wool wood steel stoff plastik holz wolle baumwolle
    leder stahl gummi
colour|Farbe: color colors colour colours colored farbe farben farblich farbton
smell|Geruch: smell smells smelled scent odor odour fragrance geruch riecht roch duft stinkt gestank
weight|Gewicht: weight weighs heavy light lightweight lighter gewicht schwer leicht leichter wiegt
cleaning|Reinigung: clean cleaning cleaned dishwasher wipe reinigung putzen reinigen spülmaschine abwischen
washing|Waschen: wash washing washed washes laundry waschen wäsche waschgang gewaschen trockner schleudern
setup|Einrichtung: setup install installed installation instructions assembly manual einrichtung einrichten anleitung
    aufbau montage eingerichtet
returns|Rückgabe: return returns returned rücksendung zurückgeschickt umtausch retoure rückgabe
freshness|Frische: fresh stale expired freshness expiration expiry frisch frische haltbar mhd abgelaufen ranzig
sweetness|Süße: sweet sweetness sweetener sugar sugary sugars süß süße zucker süßer
ingredients|Zutaten: ingredients ingredient organic gluten natural preservatives protein calories zutaten bio vegan
    kalorien
coffee|Kaffee: coffee espresso brew roast beans cup kaffee bohnen crema röstung
tea|Tee: tea teas tee grüntee aufguss
chocolate|Schokolade: chocolate cocoa schokolade kakao
pets|Haustiere: dog dogs cat cats puppy kitten pet pets hund hunde katze katzen haustier
children|Kinder: kid kids child children son daughter toddler baby kinder sohn tochter enkel enkelin kita
gift|Geschenk: gift present christmas birthday geschenk geschenkt weihnachten geburtstag mitbringsel
story|Handlung: plot story ending chapters novel handlung geschichte ende kapitel roman krimi spannung
characters|Figuren: characters character protagonist figuren figur hauptfigur kommissar
writing|Stil: writing prose style dialogue written stil sprache dialoge geschrieben erzählt
recipes|Rezepte: recipe recipes rezept rezepte nachgekocht
instructions|Spielregeln: rules regeln spielregeln spielanleitung
leakage|Dichtigkeit: leak leaks leaked leaking waterproof watertight dicht undicht dichtung wasserdicht regendicht
    ausgelaufen
sharpness|Schärfe: sharp sharpness blunt blade edge scharf schärfe klinge stumpf
grip|Halt: grip grips slip slippery slides halt rutscht rutschfest griff griffig
politics|Politik: government election president congress senate policy tax taxes politik regierung wahl partei merkel
    bundestag minister cdu spd afd grüne fdp
economy|Wirtschaft: economy jobs workers business trade industry wirtschaft arbeit unternehmen steuern rente
migration|Migration: immigration border refugees migrants flüchtlinge asyl migranten islam migration grenze
security|Sicherheit: military troops terrorism security police krieg polizei sicherheit terror
education|Bildung: school schools education students teachers schule bildung schüler lehrer studenten
health|Gesundheit: health healthcare medical doctor hospital gesundheit arzt krankenhaus pflege
"""

_FEATURES = """
battery life|Akkulaufzeit: battery batteries akku akkulaufzeit ausdauernd
fast charging|schnelles Laden: charger charging lädt ladezeit aufladen
sound quality|Klangqualität: sound bass audio klang klingt bässe
display|Display: display screen anzeige bildschirm
camera|Kamera: camera webcam kamera
wireless connection|Funkverbindung: bluetooth wireless pairing wifi koppeln gekoppelt verbindung
app|App: app software
light weight|geringes Gewicht: light lightweight lighter leicht leichter
sturdy build|robuste Verarbeitung: sturdy solid durable robust stabil verarbeitung verarbeitet
soft material|weiches Material: soft fluffy cosy weich kuschelig flauschig
material|Material: material fabric cotton leather plastic stoff baumwolle leder plastik holz
colour|Farbe: color colour colours farbe farben
fit|Passform: fit fits size passform sitzt größe
comfort|Komfort: comfortable comfy comfort bequem polster tragekomfort
quiet operation|leiser Betrieb: quiet silent leise
easy cleaning|leichte Reinigung: clean cleaning dishwasher putzen reinigen spülmaschine
waterproof|wasserdicht: waterproof watertight leak dicht wasserdicht regendicht
insulation|Isolierung: insulation hot warm insulated isolierung heiß warm
non-slip grip|rutschfest: grip slip slippery rutscht rutschfest griffig
sharp blade|scharfe Klinge: sharp blade scharf klinge schneidet
flavour|Geschmack: flavor flavour taste tastes geschmack schmeckt aroma
freshness|Frische: fresh frisch frische
sweetness|Süße: sweet süß süße
texture|Konsistenz: texture crunchy creamy chewy smooth konsistenz knusprig cremig
packaging|Verpackung: packaging package box bag verpackung karton tüte beutel
resealable bag|wiederverschließbarer Beutel: resealable reseals wiederverschließbar
design|Design: design look looks stylish aussehen optik schick
easy setup|einfache Einrichtung: setup install eingerichtet einrichten aufbau
instructions|Anleitung: instructions manual anleitung spielanleitung
pockets|Taschen: pockets pocket compartments taschen fächer
zip|Reißverschluss: zip zipper reißverschluss reißverschlüsse
seams|Nähte: seam seams stitching naht nähte
price|Preis: price value cheap expensive preis günstig teuer
ingredients|Zutaten: ingredients organic natural zutaten bio
plot|Handlung: plot story handlung geschichte
characters|Figuren: characters figuren
writing style|Schreibstil: writing prose stil sprache
recipes|Rezepte: recipes recipe rezepte rezept
pictures|Bilder: photos pictures illustrations fotos bilder abbildungen
"""

POSITIVE = frozenset([*inflected(_PRAISING_ADJECTIVES), *_PRAISING_WORDS.split()])
NEGATIVE = frozenset([*inflected(_BLAMING_ADJECTIVES), *_BLAMING_WORDS.split()])
SENTIMENT_WORDS = POSITIVE | NEGATIVE
NEGATIONS = frozenset(_NEGATIONS.split())
GERMAN_WORDS = frozenset(_GERMAN_WORDS.split())
ENGLISH_WORDS = frozenset(_ENGLISH_WORDS.split())
TOPICS = labels_by_word(_TOPICS)
FEATURES = labels_by_word(_FEATURES)
TOPIC_WORDS = frozenset(TOPICS)
FEATURE_WORDS = frozenset(FEATURES)

# Labels of a sentiment enum, in lower case, and the tone that each stands for.
TONES = {
    **dict.fromkeys(("positive", "positiv", "pos", "good", "gut", "favorable", "zufrieden", "satisfied"), "positive"),
    **dict.fromkeys(("negative", "negativ", "neg", "bad", "schlecht", "unfavorable", "unzufrieden"), "negative"),
    **dict.fromkeys(("neutral", "neu", "neither", "none", "sachlich"), "neutral"),
    **dict.fromkeys(("mixed", "gemischt", "ambivalent", "both", "teils-teils"), "mixed"),
}
LANGUAGES = {
    **dict.fromkeys(("de", "deu", "ger", "german", "deutsch", "de-de"), "de"),
    **dict.fromkeys(("en", "eng", "english", "englisch", "en-us", "en-gb"), "en"),
}
