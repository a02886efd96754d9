"""Texts for the question what metadata tells: three topics in three languages, short and long ones."""

from __future__ import annotations

from msgspec import Struct


class Text(Struct, frozen=True):
    """A prompt, and what must not be learned of it."""

    topic: str
    language: str
    words: str


_TEXTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("illness", "English"): (
        "My knee hurts",
        "The doctor says that I need an operation on my heart next month",
        "How long does a cold last?",
        "She has had a headache for three days and cannot sleep, and now her neck hurts as well. What should she do?",
        "Which medicine helps against a bad cough?",
        "I found a lump under my arm",
    ),
    ("illness", "German"): (
        "Mein Knie tut weh",
        "Der Arzt sagt, dass ich nächsten Monat am Herzen operiert werden muss",
        "Wie lange dauert eine Erkältung?",
        "Sie hat seit drei Tagen Kopfschmerzen und schläft nicht, und jetzt tut auch der Nacken weh. Was tun?",
        "Welche Medizin hilft gegen starken Husten?",
        "Ich habe einen Knoten unter dem Arm gefunden",
    ),
    ("illness", "French"): (
        "J'ai mal au genou",
        "Le médecin dit que je dois être opéré du cœur le mois prochain",
        "Combien de temps dure un rhume ?",
        "Elle a mal à la tête depuis trois jours, et maintenant sa nuque aussi lui fait mal. Que faire ?",
        "Quel médicament aide contre une forte toux ?",
        "J'ai trouvé une boule sous mon bras",
    ),
    ("money", "English"): (
        "I lost my job",
        "My bank wants the whole loan back by Friday, and I have only half of it",
        "How do I hide money?",
        "We owe the tax office more than we earn in a year, and my partner does not know it. Who can help?",
        "Is gold a good thing to buy now?",
        "Our firm will be sold in May",
    ),
    ("money", "German"): (
        "Ich habe meine Arbeit verloren",
        "Meine Bank will bis Freitag den ganzen Kredit zurück, und ich habe nur die Hälfte",
        "Wie verstecke ich Geld?",
        "Wir schulden dem Finanzamt mehr, als wir im Jahr verdienen, und mein Partner weiß es nicht. Wer hilft?",
        "Soll man jetzt Gold kaufen?",
        "Unsere Firma wird im Mai verkauft",
    ),
    ("money", "French"): (
        "J'ai perdu mon travail",
        "Ma banque veut tout le crédit pour vendredi, et je n'en ai que la moitié",
        "Comment cacher de l'argent ?",
        "Nous devons au fisc plus que nous gagnons en un an, et mon mari n'en sait rien. Qui peut m'aider ?",
        "Faut-il acheter de l'or maintenant ?",
        "Notre société sera vendue en mai",
    ),
    ("animals", "English"): (
        "The cat sleeps",
        "Once upon a time a little fox lived in a big forest with her two brothers",
        "What do hedgehogs eat?",
        "The old dog walked down to the river every morning, and waited there for the boy who had saved him. One day",
        "Why do birds fly south in winter?",
        "A bear came into our garden",
    ),
    ("animals", "German"): (
        "Die Katze schläft",
        "Es war einmal eine kleine Füchsin, die mit ihren zwei Brüdern in einem großen Wald lebte",
        "Was fressen Igel?",
        "Der alte Hund ging jeden Morgen zum Fluss wo er auf den Jungen wartete, der ihn gerettet hatte. Eines Tages",
        "Warum fliegen Vögel im Winter nach Süden?",
        "Ein Bär kam in unseren Garten",
    ),
    ("animals", "French"): (
        "Le chat dort",
        "Il était une fois une petite renarde qui vivait dans une grande forêt avec ses deux frères",
        "Que mangent les hérissons ?",
        "Le vieux chien allait chaque matin à la rivière et y attendait le garçon qui l'avait sauvé. Un jour",
        "Pourquoi les oiseaux vont-ils au sud en hiver ?",
        "Un ours est venu dans notre jardin",
    ),
}

TEXTS = tuple(Text(topic, language, words) for (topic, language), some in _TEXTS.items() for words in some)
